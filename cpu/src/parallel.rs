//! Work in parts: where it is cut, and which parts may run on other threads. Parts are halved on the stack by
//! [`rayon::join`], so that nothing is allocated.

use std::ops::Range;

/// Elements of a leaf of the normative tree (A2.2); every cut is at a multiple of it, and so of [`blockllm::mask::PREFIX`].
pub(crate) const LEAF: usize = 1024;

/// Where a run of `n` coordinates, more than a leaf, is cut in two: behind the largest subtree of A2.2 that leaves
/// something over. "Leaves fold pairwise, level by level, an odd last one passing up" is, from the root down, this very
/// cut again and again; so a sum that is folded along the cuts is the tree's, whichever parts ran on other threads.
pub(crate) fn cut(n: usize) -> usize {
    n.div_ceil(LEAF).next_power_of_two() / 2 * LEAF
}

/// A kernel's operands on a run of coordinates.
pub(crate) trait Divide: Sized + Send {
    /// Coordinates.
    fn len(&self) -> usize;
    /// The operands on the first `at` coordinates, a multiple of [`LEAF`], and on the rest.
    fn divide(self, at: usize) -> (Self, Self);
}

/// Runs `kernel` on parts of at most `grain` coordinates and folds what they return, neighbours first.
pub(crate) fn fold<W: Divide, R: Send>(
    work: W, grain: usize, kernel: &(impl Fn(W) -> R + Sync), join: &(impl Fn(R, R) -> R + Sync),
) -> R {
    if work.len() <= grain {
        return kernel(work);
    }
    let at = cut(work.len());
    let (left, right) = work.divide(at);
    let (left, right) = rayon::join(|| fold(left, grain, kernel, join), || fold(right, grain, kernel, join));
    join(left, right)
}

/// Runs `kernel` on parts of at most `grain` coordinates.
pub(crate) fn run<W: Divide>(work: W, grain: usize, kernel: &(impl Fn(W) + Sync)) {
    fold(work, grain, kernel, &|(), ()| ());
}

/// The tree of A2.2 over the leaves of a run that begins at a multiple of [`LEAF`], with `join` for the addition.
pub(crate) fn tree<R: Send>(
    run: Range<usize>, grain: usize, leaf: &(impl Fn(Range<usize>) -> R + Sync), join: &(impl Fn(R, R) -> R + Sync),
) -> R {
    let n = run.len();
    if n <= LEAF {
        return leaf(run);
    }
    let at = run.start + cut(n);
    let (left, right) = (|| tree(run.start..at, grain, leaf, join), || tree(at..run.end, grain, leaf, join));
    let (left, right) = if n > grain { rayon::join(left, right) } else { (left(), right()) };
    join(left, right)
}

/// Runs `job` on each of some jobs; on several threads where they weigh more than `grain` together. Returns the first
/// error in their order, but may have run jobs behind it.
pub(crate) fn each<J: Send, E: Send>(
    jobs: &mut [J], grain: usize, weight: &(impl Fn(&J) -> usize + Sync), job: &(impl Fn(&mut J) -> Result<(), E> + Sync),
) -> Result<(), E> {
    if jobs.len() < 2 || jobs.iter().map(weight).sum::<usize>() <= grain {
        return jobs.iter_mut().try_for_each(job);
    }
    let (left, right) = jobs.split_at_mut(jobs.len() / 2);
    let (left, right) = rayon::join(|| each(left, grain, weight, job), || each(right, grain, weight, job));
    left.and(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockllm::sum_of_squares::sum_of_squares;

    /// Leaves whose sums tell orders of addition apart.
    fn leaf_sum(i: usize) -> f64 {
        [1.0, 0.5f64.powi(53), 3.0, 0.5f64.powi(52), 1.0 / 3.0][i % 5]
    }

    #[test]
    fn cuts_give_the_normative_tree_a2_2() {
        for leaves in 1..70 {
            for rest in [1, LEAF - 1, LEAF] {
                let n = (leaves - 1) * LEAF + rest;
                let want = sum_of_squares((0..n).map(|i| if i % LEAF == 0 { leaf_sum(i / LEAF).sqrt() } else { 0.0 }));
                let square = |i: usize| leaf_sum(i).sqrt() * leaf_sum(i).sqrt();
                let leaf = |run: Range<usize>| {
                    assert!(run.start.is_multiple_of(LEAF) && run.len() <= LEAF);
                    square(run.start / LEAF)
                };
                for grain in [LEAF, 4 * LEAF, 1 << 20] {
                    assert_eq!(tree(0..n, grain, &leaf, &|a, b| a + b).to_bits(), want.to_bits(), "{n}, grain {grain}");
                }
            }
        }
    }

    #[test]
    fn the_first_error_in_order_is_returned() {
        let mut jobs: Vec<usize> = (0..20).collect();
        let fails = |i: &mut usize| if *i == 7 || *i == 13 { Err(*i) } else { Ok(()) };
        for grain in [1, 1000] {
            assert_eq!(each(&mut jobs, grain, &|_| 10, &fails), Err(7));
        }
    }
}
