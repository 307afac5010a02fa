//! Operations against golden data: PyTorch's Adam, exact masks, selection traces, switches.

use blockllm::adam::{self, Coefficients, Hyper, Packed, Powers, Scales};
use blockllm::block::budget;
use blockllm::element::{Element, Real};
use blockllm::fill::{Sized, fill};
use blockllm::mask::{self, Mask};
use blockllm::moments;
use blockllm::patience::LossHistory;
use blockllm::policy::block_llm;
use blockllm::{BlockSpec, Config, DType, Decay, Fill, MaskKind, Optimizer, Reference, Slices, Step, VisitBias};
use blockllm_conformance::golden::{self, floats, shape};
use blockllm_conformance::host::Host;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;

fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().clone().unwrap_or_default().into_iter().collect()
}

fn host(dtype: DType, values: &[f64]) -> Host {
    match dtype {
        DType::F64 => Host::F64(values.to_vec()),
        _ => Host::F32(values.iter().map(|&x| x as f32).collect()),
    }
}


/// |got - want| within the tolerances of A6.6.
fn close(at: &str, got: &[f64], want: &[f64], bound: impl Fn(usize) -> f64) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound(i), "{at}[{i}]: {g:e}, PyTorch has {w:e}, bound {:e}", bound(i));
    }
}

#[test]
fn golden_adam_within_the_bounds_of_a6_6() {
    let bytes = golden::bytes("adam.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let cases = metadata(&bytes);
    assert_eq!(cases.len(), 8);
    for (key, meta) in cases {
        let meta: Value = serde_json::from_str(&meta).unwrap();
        let number = |k: &str| meta[k].as_f64().unwrap();
        let dtype = if key.ends_with("f64") { DType::F64 } else { DType::F32 };
        let (n, steps) = (shape(&file, &format!("{key}.param0"))[0], number("steps") as usize);
        let l2 = !meta["decoupled"].as_bool().unwrap();
        let config = Config {
            betas: [number("beta1"), number("beta2")],
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            decay: if l2 { Decay::L2 } else { Decay::Decoupled },
            ..Config::adamw()
        };
        let mut o = Optimizer::new(Reference::<Slices>::default(), &[BlockSpec::new("p", [1, n]).dtype(dtype)], config).unwrap();
        let mut p = host(dtype, &floats(&file, &format!("{key}.param0")));
        let grads = floats(&file, &format!("{key}.grads"));
        let mut largest = vec![0.0f64; n];
        for t in 1..=steps {
            let g = host(dtype, &grads[(t - 1) * n..t * n]);
            for ((big, g), p) in largest.iter_mut().zip(g.doubles()).zip(p.doubles()) {
                *big = big.max(g.abs() + if l2 { number("weight_decay") * p.abs() } else { 0.0 });
            }
            let _ = o.step(Step::new(number("lr")), |_| Some(g.view()), &mut [(0, p.view_mut())]).unwrap();
            o.wait().unwrap();
            if file.tensor(&format!("{key}.param.t{t}")).is_err() {
                continue;
            }
            let (eps, p_bound) = if dtype == DType::F64 { (f64::EPSILON, 1e-15) } else { (f64::from(f32::EPSILON), 2.5e-7) };
            let want = |name: &str| floats(&file, &format!("{key}.{name}.t{t}"));
            let saved = o.save().unwrap();
            let moment = |name: &str| match dtype {
                DType::F64 => {
                    saved.get(name).unwrap().data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect::<Vec<_>>()
                }
                _ => saved.get(name).unwrap().data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            };
            let (wp, wm, wv) = (want("param"), want("m"), want("v"));
            close(&format!("{key} p, t = {t}"), &p.doubles(), &wp, |i| p_bound * wp[i].abs().max(1.0));
            close(&format!("{key} m, t = {t}"), &moment("m/p"), &wm, |i| 16.0 * eps * wm[i].abs().max(largest[i]));
            close(&format!("{key} v, t = {t}"), &moment("v/p"), &wv, |i| 16.0 * eps * wv[i].max(largest[i] * largest[i]));
        }
    }
}

fn masks_of<F: Real + Element<F>>(values: &[F], k: usize, kind: MaskKind) -> Vec<u8> {
    let mut words = vec![u32::MAX; mask::words(values.len())];
    mask::build::<F, F>(values, k, kind, &mut words);
    let mask = Mask::new(&words, values.len());
    (0..values.len()).map(|i| u8::from(mask.contains(i))).collect()
}

#[test]
fn golden_masks_exact() {
    let bytes = golden::bytes("masks.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut checked = 0;
    for name in file.names().into_iter().filter(|n| !n.ends_with(".values")) {
        let parts: Vec<&str> = name.split('.').collect();
        let values = floats(&file, &format!("{}.{}.values", parts[0], parts[1]));
        let k: usize = parts[2][1..].parse().unwrap();
        let kind = parts.get(3).map_or(MaskKind::Coordinate, |t| MaskKind::Tile(t[4..].parse().unwrap()));
        let got = if parts[1] == "f64" {
            masks_of(&values, k, kind)
        } else {
            masks_of(&values.iter().map(|&x| x as f32).collect::<Vec<_>>(), k, kind)
        };
        assert!(got == file.tensor(name).unwrap().data(), "{name}");
        checked += 1;
    }
    assert!(checked > 100, "{checked} masks");
}

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
            let mut ranked: Vec<u32> = (0..units.len() as u32).filter(|&u| !pinned.contains(&units[u as usize][0])).collect();
            block_llm::rank(&mut ranked, |u| bias.key(scores[u as usize], visits[u as usize], selections, total));
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

/// One block across changing masks, by the public operations: mask, carry, gather, update.
fn trajectory(file: &SafeTensors<'_>, config: &Value, carry: bool) {
    let number = |k: &str| config[k].as_f64().unwrap();
    let (grads, masks) = (floats(file, "grads"), floats(file, "masks"));
    let mut p = floats(file, "param0");
    let (n, length) = (p.len(), number("steps_per_segment") as usize);
    let hyper = Hyper {
        lr: number("lr"),
        betas: [number("beta1"), number("beta2")],
        eps: number("eps"),
        weight_decay: number("weight_decay"),
        decay: Decay::Decoupled,
        inv_loss_scale: 1.0,
        clip: None,
        sign_scale: None,
    };
    let (mut m, mut v, mut powers) = (Vec::<f64>::new(), Vec::<f64>::new(), Powers::START);
    let mut old: Option<Vec<u32>> = None;
    for segment in 0..shape(file, "masks")[0] {
        // The mask of the largest |x| of 0 and 1 is the mask itself.
        let now = &masks[segment * n..(segment + 1) * n];
        let k = now.iter().filter(|&&x| x == 1.0).count();
        let mut words = vec![0; mask::words(n)];
        mask::build::<f64, f64>(now, k, MaskKind::Coordinate, &mut words);
        let new = Mask::new(&words, n);
        let before = old.as_ref().filter(|_| carry).map(|w| Mask::new(w, n));
        let (mut new_m, mut new_v) = (vec![f64::NAN; k], vec![f64::NAN; k]);
        match before {
            Some(before) => {
                moments::carry(&m, before, &mut new_m, new);
                moments::carry(&v, before, &mut new_v, new);
            }
            None => (new_m, new_v, powers) = (vec![0.0; k], vec![0.0; k], Powers::START),
        }
        (m, v) = (new_m, new_v);
        for i in 0..length {
            let t = segment * length + i;
            powers.advance(hyper.betas);
            let mut packed = vec![f64::NAN; k];
            adam::gather(&grads[t * n..(t + 1) * n], new, &mut packed);
            let c = Coefficients::new(&hyper, Scales::default(), &powers, 1.0);
            let entering = before.filter(|_| i == 0);
            adam::update(&mut p, new, entering, Packed { g: &packed, m: &mut m, v: &mut v }, &c);
        }
        let name = if carry { "carry" } else { "reset" };
        let dense = |packed: &[f64]| (0..n).map(|i| if new.contains(i) { packed[new.rank(i)] } else { 0.0 }).collect::<Vec<_>>();
        for (what, got) in [("param", p.clone()), ("m", dense(&m)), ("v", dense(&v))] {
            let key = format!("{name}.{what}.after{segment}");
            let want = floats(file, &key);
            close(&key, &got, &want, |i| 1e-13 * want[i].abs());
        }
        old = Some(words);
    }
}

#[test]
fn golden_switch_trajectories() {
    let bytes = golden::bytes("switch.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let config: Value = serde_json::from_str(&metadata(&bytes)["config"]).unwrap();
    trajectory(&file, &config, false);
    trajectory(&file, &config, true);
}
