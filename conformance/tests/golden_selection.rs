//! Selection, which no backend has a part in, against golden traces.

use blockllm::block::budget;
use blockllm::fill::{Sized, fill};
use blockllm::patience::LossHistory;
use blockllm::policy::block_llm;
use blockllm::{Fill, MaskKind, VisitBias};
use blockllm_conformance::golden;
use serde_json::Value;

fn indices(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

#[test]
fn golden_selection_traces() {
    let doc = golden::json("selection.json");
    let traces = doc["traces"].as_array().unwrap();
    let mut decisions = 0;
    for (number, t) in traces.iter().enumerate() {
        let sizes = indices(&t["sizes"]);
        let units: Vec<Vec<usize>> = t["units"].as_array().unwrap().iter().map(indices).collect();
        let pinned = indices(&t["pinned"]);
        let n_s = budget(sizes.iter().sum(), t["sparsity"].as_f64().unwrap());
        assert_eq!(n_s as u64, t["budget"].as_u64().unwrap(), "trace {number}: budget");
        let bias = match t["bias"].as_str().unwrap() {
            "ratio" => VisitBias::Ratio,
            "exponential" => VisitBias::Exponential,
            _ => VisitBias::None,
        };
        let kind = match t["fill"].as_str().unwrap() {
            "last_masked" => Fill::LastMasked,
            "uniform" => Fill::Uniform,
            _ => Fill::Whole,
        };
        let room = n_s - pinned.iter().map(|&b| sizes[b]).sum::<usize>();
        let (mut visits, mut selections) = (vec![0u64; units.len()], 0);
        let mut history = LossHistory::new(t["patience"].as_u64().unwrap() as usize);
        for event in t["events"].as_array().unwrap() {
            let at = format!("trace {number}, step {}", event["step"]);
            let (_, fires) = history.enter(event["loss"].as_f64());
            assert_eq!(fires, event["fires"].as_bool().unwrap(), "{at}: the loss rule");
            if !fires {
                continue;
            }
            decisions += 1;
            let total = visits.iter().sum();
            let scores: Vec<f64> = event["unit_scores"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
            let selectable = (0..units.len() as u32).filter(|&u| !pinned.contains(&units[u as usize][0]));
            let ranked = block_llm::rank(selectable, |u| bias.key(scores[u as usize], visits[u as usize], selections, total));
            let size = |&b: &usize| -> Sized { (b as u32, sizes[b]) };
            let mut active: Vec<Sized> = pinned.iter().map(size).collect();
            active.extend(fill(kind, MaskKind::Coordinate, ranked.iter().map(|&u| units[u as usize].iter().map(size)), room));
            let want: Vec<Sized> =
                event["active"].as_array().unwrap().iter().map(|p| (indices(p)[0] as u32, indices(p)[1])).collect();
            assert_eq!(active, want, "{at}: the active blocks in rank order");
            for (u, unit) in units.iter().enumerate() {
                visits[u] += u64::from(unit.iter().any(|b| active.iter().any(|a| a.0 as usize == *b)));
            }
            selections += 1;
            history.clear();
        }
    }
    assert!(decisions > 200, "{decisions} decisions");
}
