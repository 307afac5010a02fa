//! What changes an arena between steps, or carries it elsewhere: blocks added and removed (A1.1), moments taken over from
//! another run, a step that is saved while it is open (A6.2).

use crate::drive::Drive;
use crate::harness::Harness;
use crate::lockstep::Lockstep;
use crate::problem::{Problem, problems};
use blockllm::{Config, DType, Inactive, Optimizer, Step};

fn named(name: &str) -> Problem {
    let found = problems(&[DType::F32]).into_iter().find(|p| p.name.starts_with(name));
    found.unwrap_or_else(|| panic!("no run is named {name}"))
}

/// Larger blocks than were there come, one that is active goes; arena, tables and scratch follow.
pub fn blocks_come_and_go<H: Harness>(h: &mut H) {
    for name in ["default", "L2, frozen", "immediate", "full"] {
        let p = named(name);
        let params = p.parameters();
        let (start, more) = (5, p.specs.len());
        let mut pair = Lockstep::new(h, &p.specs[..start], &p.config, params[..start].to_vec(), Drive::Streaming, &p.name);
        let mut switches = 0;
        for step in 1..=24 {
            if step == 7 {
                pair.add(&p.specs[start..more], params[start..].to_vec());
            }
            if step == 16 {
                let active = pair.reference.active().regions.iter().find(|r| r.block != 6).map(|r| r.block);
                pair.remove(active.expect("an active block that is not always active"));
            }
            let grads: Vec<_> =
                (0..p.micro_batches).map(|micro| p.gradients(step, micro)[..pair.params.len()].to_vec()).collect();
            switches += usize::from(pair.step(p.step(step), &grads).switched);
        }
        assert!(switches >= if name == "full" { 1 } else { 3 }, "{name}: {switches} switches");
    }
}

/// A record of full AdamW begins a run of a fifth of its state: the arena holds more until the first switch.
pub fn moments_are_taken_over<H: Harness>(h: &mut H) {
    let (full, p) = (named("full"), named("default"));
    let mut before = Lockstep::new(h, &full.specs, &full.config, full.parameters(), Drive::Whole, "full");
    for step in 1..=4 {
        let grads: Vec<_> = (0..full.micro_batches).map(|micro| full.gradients(step, micro)).collect();
        before.step(full.step(step), &grads);
    }
    let (record, params) = (before.reference.save().unwrap_or_else(|e| panic!("{e}")), before.params.clone());
    for immediate in [false, true] {
        let clip = if immediate { None } else { p.config.clip };
        let config = Config { immediate, clip, inactive: Inactive::Frozen, ..p.config.clone() };
        let mut pair = Lockstep::new(h, &p.specs, &config, params.clone(), Drive::Whole, "taken over");
        pair.adopt(&record);
        for step in 5..=7 {
            pair.step(p.step(step), &[p.gradients(step, 0)]);
        }
        let moments = pair.device.memory().moments;
        assert_eq!(moments, 2 * 4 * pair.device.budget(), "the arena is n_s again");
    }
}

/// Cut in its second micro-batch with half of the gradients delivered, on a step that switches and on one that does not.
pub fn a_window_goes_on_elsewhere<H: Harness>(h: &mut H) {
    let p = named("accumulation");
    for cut_at in [6, 7, 8] {
        let run = |h: &mut H, is_cut: bool| {
            let mut o = Optimizer::new(h.backend(), &p.specs, p.config.clone()).unwrap_or_else(|e| panic!("{e}"));
            let mut params: Vec<H::Tensor> = p.parameters().iter().map(|x| h.upload(x.view())).collect();
            for step in 1..=8 {
                o.begin(p.step(step)).unwrap_or_else(|e| panic!("{e}"));
                for micro in 0..p.micro_batches {
                    if micro > 0 {
                        o.next_micro_batch(None).unwrap_or_else(|e| panic!("{e}"));
                    }
                    let grads = p.gradients(step, micro);
                    let wanted: Vec<_> = o.missing().copied().collect();
                    for (i, w) in wanted.iter().enumerate() {
                        if is_cut && step == cut_at && micro == 1 && i == wanted.len() / 2 {
                            let record = o.save().unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
                            let host: Vec<_> = params.iter().map(|t| h.download(o.backend_mut(), t)).collect();
                            o = Optimizer::new(h.backend(), &p.specs, p.config.clone()).unwrap_or_else(|e| panic!("{e}"));
                            // Another run's leftovers must not matter.
                            let _ = o.begin(Step::new(0.1));
                            o.restore(&record).unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
                            params = host.iter().map(|x| h.upload(x.view())).collect();
                            assert_eq!(o.missing().count(), wanted.len() - i);
                        }
                        let g = h.upload(grads[w.block as usize].view());
                        let done = o.grad_with(w.block, &H::grad(&g), &mut H::param(&mut params[w.block as usize]));
                        done.unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
                    }
                }
                let mut handles: Vec<_> = (0..).zip(params.iter_mut().map(H::param)).collect();
                let _ = o.finish(&mut handles).unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
                drop(handles);
                o.wait().unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
            }
            let record = o.save().unwrap_or_else(|e| panic!("{}: {e}", H::NAME));
            let params: Vec<_> = params.iter().map(|t| h.download(o.backend_mut(), t)).collect();
            (record, params)
        };
        let (cut, whole) = (run(h, true), run(h, false));
        assert!(cut == whole, "{}: cut in step {cut_at}", H::NAME);
    }
}
