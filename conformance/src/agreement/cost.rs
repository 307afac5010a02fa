//! What a step may cost: a step that neither decides nor switches allocates nothing, reads nothing back, and is one
//! submission where its gradients are at hand.

use crate::drive::{self, Drive};
use crate::harness::{Counts, Harness};
use crate::problem::{Problem, problems};
use blockllm::{Config, DType, Optimizer, Policy, Trigger};

const STEPS: u64 = 5;

/// What some plain steps cost, and how many gradients they took.
fn spent<H: Harness>(h: &mut H, p: &Problem, drive: Drive) -> (Counts, usize) {
    let never = Policy::BlockLlm(Trigger::Period(1_000_000));
    let config = Config { policy: never, ..p.config.clone() };
    let mut o = Optimizer::new(h.backend(), &p.specs, config).unwrap_or_else(|e| panic!("{}: {e}", p.name));
    let mut params: Vec<_> = p.parameters().iter().map(|x| h.upload(x.view())).collect();
    let mut step = |o: &mut Optimizer<H::Backend>, number: u64| {
        let grads: Vec<_> = (0..p.micro_batches).map(|micro| p.gradients(number, micro)).collect();
        drive::step(h, o, &mut params, p.step(number), &grads, drive).unwrap_or_else(|e| panic!("{}: {e}", p.name));
    };
    // The first switches; the second is plain, and may make what later ones need.
    (1..=2).for_each(|number| step(&mut o, number));
    let before = H::counts(o.backend());
    let mut gradients = 0;
    for number in 3..3 + STEPS {
        let last = o.wanted().map_or(0, <[_]>::len);
        gradients += last + (p.micro_batches as usize - 1) * o.active().regions.len();
        step(&mut o, number);
    }
    let after = H::counts(o.backend());
    let counts = Counts {
        allocations: after.allocations - before.allocations,
        submissions: after.submissions - before.submissions,
        readbacks: after.readbacks - before.readbacks,
    };
    (counts, gradients)
}

/// Counted on the device, in both drive modes, with and without accumulation.
pub fn a_plain_step_reads_nothing_and_allocates_nothing<H: Harness>(h: &mut H) {
    for p in problems(&[DType::F32]).into_iter().filter(|p| p.config.policy != Policy::Full) {
        for drive in [Drive::Whole, Drive::Streaming] {
            let (spent, gradients) = spent(h, &p, drive);
            let what = format!("{} {} {drive:?}: {spent:?} in {STEPS} steps of {gradients} gradients", H::NAME, p.name);
            assert_eq!((spent.allocations, spent.readbacks), (0, 0), "{what}");
            // A device that works at the call submits nothing.
            let submissions = match drive {
                Drive::Whole => STEPS as usize * p.micro_batches as usize,
                Drive::Streaming => gradients + STEPS as usize,
            };
            assert!([0, submissions].contains(&spent.submissions), "{what}: {submissions} were expected");
        }
    }
}
