//! The golden file of whole runs: that all of it is there, the recipe of its data, and configurations that are errors. The
//! traces themselves are replayed by each backend's `tests/conformance.rs`.

use blockllm::{Error, Optimizer, Reference, View};
use blockllm_conformance::agreement::golden::traces;
use blockllm_conformance::golden;
use blockllm_conformance::recipe::{Mode, chain, values};
use blockllm_conformance::trace;

#[test]
fn golden_engine_has_all_traces() {
    let traces = traces();
    if std::env::var_os("BLOCKLLM_GOLDEN").is_none() {
        assert_eq!(traces.len(), 67);
    }
    assert!(traces.iter().all(|t| t.events.len() == t.records.len() && t.events.len() > 20));
}

#[test]
fn golden_engine_recipe_and_trees() {
    let doc = golden::json("engine.json");
    for tree in doc["trees"].as_array().unwrap() {
        let n = tree["n"].as_u64().unwrap() as usize;
        let dtype = if tree["type"] == "f64" { blockllm::DType::F64 } else { blockllm::DType::F32 };
        let x = values(tree["base"].as_u64().unwrap(), n, dtype, Mode::Normal, tree["exp"].as_i64().unwrap());
        let sum = match x.view() {
            View::F32(x) => blockllm::sum_of_squares::sum_of_squares(x.iter().map(|&e| f64::from(e))),
            View::F64(x) => blockllm::sum_of_squares::sum_of_squares(x.iter().copied()),
            _ => unreachable!(),
        };
        assert_eq!(sum.to_bits(), tree["sum"].as_u64().unwrap(), "tree of {n} {dtype}");
    }
    assert!(doc["trees"].as_array().unwrap().len() >= 30);
    assert_ne!(chain(&[0, 1]), chain(&[1, 0]));
}

#[test]
fn golden_engine_config_errors() {
    let doc = golden::json("engine.json");
    let errors = doc["config_errors"].as_array().unwrap();
    assert!(!errors.is_empty());
    for case in errors {
        let specs: Vec<_> = trace::blocks(&case["config"]).into_iter().map(|b| b.spec).collect();
        let made = Optimizer::new(Reference::<blockllm::Slices>::default(), &specs, trace::config(&case["config"]));
        let error = made.err().unwrap_or_else(|| panic!("no error: {}", case["why"]));
        let right = match case["why"].as_str().unwrap() {
            "always-active larger than n_s" => matches!(error, Error::Budget { .. }),
            "always-active member of a group" => matches!(error, Error::AlwaysActiveInGroup { .. }),
            _ => matches!(error, Error::NothingFits { .. }),
        };
        assert!(right, "{}: {error}", case["why"]);
    }
}
