//! What is wrong with tensors, with a step's numbers, and with the order of calls.

use super::*;

pub fn gradients_and_parameters(seen: &mut Seen) {
    let sign = || Config { inactive: Inactive::SignSgd(1.0), fill: Fill::Uniform, ..config() };
    let g = gradients(9);
    let double = vec![0.0f64; 200];
    for prepare in [fresh, trained] {
        // A whole step in which one tensor is wrong is not begun.
        for (block, tensor) in [(0, "short"), (5, "double"), (3, "none")] {
            let wrong = |b: BlockId| match tensor {
                _ if b != block => Some(grad(&g, b)),
                "short" => Some(View::F32(&g[b as usize][1..])),
                "double" => Some(View::F64(&double[..SIZES[b as usize]])),
                _ => None,
            };
            let name = format!("w{block}");
            let n = SIZES[block as usize].to_string();
            let says: &[&str] = match tensor {
                "short" => &["gradient", &name, &n],
                "double" => &["gradient", &name, "f64", "f32"],
                _ => &["gradient", &name],
            };
            seen.refused(sign(), prepare, |o, p| o.step(Step::new(0.01), wrong, &mut views(p)).map(drop), says);
        }
        let grads = |b: BlockId| Some(grad(&g, b));
        type Change = fn(&mut Vec<(BlockId, ViewMut<'_>)>);
        let changes: [(Change, &[&str]); 4] = [
            (|v| v[4].1 = ViewMut::F32(&mut []), &["parameter", "w4", "0", "64"]),
            (|v| v[1].1 = ViewMut::F64(&mut []), &["parameter", "w1", "f64", "f32"]),
            (|v| v.retain(|p| p.0 != 4), &["parameter", "w4"]),
            (|v| v.swap(2, 3), &["ascending", "w2"]),
        ];
        for (change, says) in changes {
            let call = |o: &mut Engine, p: &mut Params| {
                let mut v = views(p);
                change(&mut v);
                o.step(Step::new(0.01), grads, &mut v).map(drop)
            };
            seen.refused(sign(), prepare, call, says);
        }
    }
    // Streamed: the step stays open and is repaired.
    let short = |o: &mut Engine, _: &mut Params| {
        let b = active(o);
        o.grad(b, &View::F32(&gradients(9)[b as usize][1..]))
    };
    seen.refused(config(), in_a_step, short, &["block w", "gradient", "elements"]);
    let half = |o: &mut Engine, _: &mut Params| o.grad(active(o), &View::F16(&[]));
    seen.refused(config(), in_a_step, half, &["block w", "gradient", "f16", "f32"]);
    seen.refused(config(), in_a_step, |o, _| o.grad(6, &View::F32(&[])), &["block 6", "there are 6"]);
    let idle = |o: &mut Engine, _: &mut Params| {
        let b = (0..6).find(|b| o.wanted().unwrap().iter().all(|w| w.block != *b)).expect("an idle block that is not probed");
        o.grad(b, &grad(&gradients(9), b))
    };
    seen.refused(config(), in_a_step, idle, &["did not ask", "block w"]);
    let delivered = |o: &mut Engine, p: &mut Params| {
        in_a_window(o, p);
        o.grad(active(o), &grad(&gradients(9), active(o))).unwrap();
    };
    seen.refused(config(), delivered, |o, _| o.grad(active(o), &grad(&gradients(9), active(o))), &["second time", "block w"]);
    seen.refused(config(), delivered, |o, _| o.accumulate(|b| Some(grad(&g, b))), &["second time", "block w"]);
    let delivered = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        o.grad(active(o), &grad(&gradients(9), active(o))).unwrap();
    };
    let again = |o: &mut Engine, p: &mut Params| o.finish_whole(|b| Some(grad(&g, b)), &mut views(p)).map(drop);
    seen.refused(config(), delivered, again, &["second time", "block w"]);
    seen.refused(config(), in_a_step, |o, p| o.finish(&mut views(p)).map(drop), &["needs its gradient", "block w"]);
    seen.refused(config(), in_a_window, |o, _| o.next_micro_batch(None), &["needs its gradient", "block w"]);
    seen.refused(config(), in_a_window, |o, _| o.accumulate(|_| None), &["needs its gradient", "block w"]);
    let complete = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        let g = gradients(9);
        for w in o.wanted().unwrap().to_vec() {
            o.grad(w.block, &grad(&g, w.block)).unwrap();
        }
    };
    seen.refused(config(), complete, |o, _| o.finish(&mut []).map(drop), &["has no parameter", "block w"]);
    seen.refused(sign(), in_a_step, |o, _| o.grad(active(o), &grad(&gradients(9), active(o))), &["has no parameter", "block w"]);
}

/// Slices that may be strided.
#[derive(Debug)]
struct Strided;

impl HostTensors for Strided {
    type Error = Infallible;
    type Param<'a> = (&'a mut [f32], bool);
    type Grad<'a> = (&'a [f32], bool);

    fn param_info(p: &(&mut [f32], bool)) -> Info {
        Info { len: p.0.len(), dtype: DType::F32, contiguous: p.1 }
    }

    fn grad_info(g: &(&[f32], bool)) -> Info {
        Info { len: g.0.len(), dtype: DType::F32, contiguous: g.1 }
    }

    fn read<R>(g: &(&[f32], bool), f: impl FnOnce(View<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(View::F32(g.0)))
    }

    fn modify<R>(p: &mut (&mut [f32], bool), f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(ViewMut::F32(p.0)))
    }
}

pub fn strided(seen: &mut Seen) {
    let mut o = Optimizer::new(Reference::<Strided>::default(), &specs(), config()).unwrap();
    let block = o.active().regions[0].block;
    let (g, mut p) = (gradients(1), parameters());
    let before = o.save().unwrap();
    for (param, grad, what) in [(true, false, "gradient"), (false, true, "parameter")] {
        let mut params: Vec<_> = (0..).zip(&mut p).map(|(b, p)| (b, (&mut p[..], param || b != block))).collect();
        let grads = |b: BlockId| Some((&g[b as usize][..], grad || b != block));
        let error = o.step(Step::new(0.01), grads, &mut params).expect_err("strided");
        seen.note(&error, &[what, &format!("w{block}"), "contiguous"]);
        assert!(matches!(error, Error::NotContiguous { .. }) && before == o.save().unwrap());
    }
    assert_eq!(bits(&p), bits(&parameters()));
}

pub fn numbers_of_a_step(seen: &mut Seen) {
    let lr = |lr| Step::new(lr);
    let scale = |inv_loss_scale| Step { inv_loss_scale, ..Step::new(0.01) };
    for (bad, says) in [
        (lr(-0.1), ["lr", "-0.1"]),
        (lr(f64::NAN), ["lr", "NaN"]),
        (lr(1e39), ["lr", "finite"]),
        (scale(0.0), ["inv_loss_scale", "0"]),
        (scale(-1.0), ["inv_loss_scale", "-1"]),
        (scale(1e-60), ["inv_loss_scale", "positive"]),
        (scale(f64::INFINITY), ["inv_loss_scale", "inf"]),
        (lr(0.01).micro_batches(0), ["micro_batches", "0"]),
    ] {
        seen.refused(config(), trained, |o, _| o.begin(bad), &says);
        seen.refused(config(), trained, |o, p| step(o, bad, p), &says);
    }
    seen.refused(config(), trained, |o, p| step(o, lr(0.01).micro_batches(2), p), &["micro_batches", "2", "finish_whole"]);
    let immediate = Config { immediate: true, ..config() };
    seen.refused(immediate, trained, |o, _| o.begin(lr(0.01).micro_batches(2)), &["micro_batches", "2"]);
}

pub fn calls_out_of_order(seen: &mut Seen) {
    let none = || Some(View::F32(&[]));
    type Call<'a> = (&'a str, fn(&mut Engine, &mut Params) -> Outcome);
    let between: [Call<'_>; 6] = [
        ("grad", |o, _| o.grad(0, &View::F32(&[]))),
        ("abort", |o, _| o.abort()),
        ("finish", |o, p| o.finish(&mut views(p)).map(drop)),
        ("next_micro_batch", |o, _| o.next_micro_batch(None)),
        ("accumulate", |o, _| o.accumulate(|_| None)),
        ("poll_report", |o, _| o.poll_report().map(drop)),
    ];
    for (name, call) in between {
        seen.refused(config(), trained, call, &[name]);
    }
    seen.refused(config(), trained, |o, p| o.finish_whole(|_| none(), &mut views(p)).map(drop), &["finish_whole", "begin"]);
    let in_step: [Call<'_>; 9] = [
        ("begin", |o, _| o.begin(Step::new(0.01))),
        ("step", |o, p| step(o, Step::new(0.01), p)),
        ("freeze", |o, _| o.freeze(0)),
        ("thaw", |o, _| o.thaw(0)),
        ("force_decision", |o, _| o.force_decision()),
        ("request_report", |o, _| o.request_report()),
        ("add_blocks", |o, _| o.add_blocks(&[BlockSpec::new("new", [1, 2])]).map(drop)),
        ("remove_block", |o, _| o.remove_block(0)),
        ("poll", |o, _| o.poll().map(drop)),
    ];
    for (name, call) in in_step {
        seen.refused(config(), in_a_step, call, &[name, "a step is open"]);
    }
    seen.refused(config(), in_a_step, |o, _| o.next_micro_batch(None), &["next_micro_batch", "last"]);
    seen.refused(config(), in_a_step, |o, _| o.accumulate(|_| none()), &["accumulate", "last"]);
    seen.refused(config(), in_a_window, |o, p| o.finish(&mut views(p)).map(drop), &["finish", "more micro-batches"]);
    let scan = Config { first: First::Scan, ..config() };
    seen.refused(scan, fresh, |o, _| o.force_decision(), &["force_decision", "first set"]);
    let updated = |o: &mut Engine, p: &mut Params| {
        in_a_step(o, p);
        let b = active(o);
        o.grad_with(b, &grad(&gradients(9), b), &mut ViewMut::F32(&mut p[b as usize])).unwrap();
    };
    let immediate = || Config { immediate: true, ..config() };
    seen.refused(immediate(), updated, |o, _| o.abort(), &["abort", "finish the step"]);
    seen.refused(immediate(), updated, |o, _| o.save().map(drop), &["save", "finish the step"]);
    let carry = Config { across: Across::Carry, ..config() };
    seen.refused(carry, trained, |o, _| o.adopt(&Record::default()).map(drop), &["adopt", "before the first step"]);
    seen.refused(config(), fresh, |o, _| o.adopt(&Record::default()).map(drop), &["across", "Reset", "Carry"]);
}

/// The device takes its time: a step has ended and its switch is not known yet.
pub fn waiting(seen: &mut Seen) {
    let pending = |o: &mut Engine, p: &mut Params| {
        o.backend_mut().latency = 2;
        let g = gradients(9);
        assert_eq!(o.step(Step::new(0.01), |b| Some(grad(&g, b)), &mut views(p)).unwrap(), Progress::Pending);
    };
    type Call = fn(&mut Engine, &mut Params) -> Outcome;
    let calls: [Call; 9] = [
        |o, _| o.begin(Step::new(0.01)),
        |o, p| step(o, Step::new(0.01), p),
        |o, _| o.freeze(0),
        |o, _| o.thaw(0),
        |o, _| o.force_decision(),
        |o, _| o.request_report(),
        |o, _| o.save().map(drop),
        |o, _| o.remove_block(0),
        |o, _| o.wanted().map(drop),
    ];
    for call in calls {
        seen.refused(config(), pending, call, &["poll first"]);
    }
}
