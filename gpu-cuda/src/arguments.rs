//! What kernels take: for each the structure of the same name in its source. All fields are of eight bytes, so that both
//! compilers lay them out alike; a test compares the sizes with the PTX.

/// An address on the device; 0 for none.
pub(crate) type Address = u64;

/// A kernel's structure.
pub(crate) trait Arguments: Copy {
    /// The file of its kernel.
    const KERNEL: &'static str;
}

macro_rules! arguments {
    ($($kernel:ident: $name:ident { $($field:ident: $t:ty),* $(,)? })*) => {
        $(
            #[doc = concat!("Of `", stringify!($kernel), "`.")]
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $t,)*
            }

            impl Arguments for $name {
                const KERNEL: &'static str = stringify!($kernel);
            }
        )*

        /// Each kernel's file and the bytes of what it takes.
        #[cfg(test)]
        pub(crate) const SIZES: &[(&str, usize)] = &[$(($name::KERNEL, size_of::<$name>())),*];
    };
}

/// Decay rates and eps (`adam.cuh`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Rates {
    pub(crate) one_minus_beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) one_minus_beta2: f64,
    pub(crate) eps: f64,
}

/// What a selection goes over (`select.cuh`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Items {
    pub(crate) g: Address,
    pub(crate) n: u64,
    pub(crate) tile: u64,
}

/// Words that one launch can bring (`upload.cu`).
pub(crate) const UPLOAD_WORDS: usize = 500;

arguments! {
    gather: Gather { g: Address, packed: Address, mask: Address, n: u64, k: u64, add: u64 }
    score: Score { g: Address, subtrees: Address, n: u64, inv_loss_scale: f64 }
    score_processed: ScoreProcessed {
        g: Address, subtrees: Address, m: Address, v: Address, mask: Address, powers: Address, n: u64, inv_loss_scale: f64,
        beta1: f64, rates: Rates,
    }
    fold: Fold { subtrees: Address, sum: Address, count: u64 }
    inspect: Inspect {
        gradient: Address, regions: Address, subtrees: Address, found: Address, count: u64, all_subtrees: u64, inv_loss_scale: f64,
    }
    fold_regions: FoldRegions { regions: Address, subtrees: Address, count: u64 }
    seal: Seal {
        regions: Address, subtrees: Address, found: Address, flags: Address, steps: Address, norm: Address, powers: Address,
        count: u64, part: u64, switching: u64, guard_limit: u64, has_clip: u64, clip: f64, beta1: f64, beta2: f64,
    }
    enter_scores: EnterScores {
        scored: Address, members: Address, sums: Address, table: Address, flags: Address, count: u64, step: u64,
    }
    clear: Clear { m: Address, v: Address, flags: Address, k: u64 }
    carry: Carry { from: Address, to: Address, old_mask: Address, new_mask: Address, flags: Address, n: u64, k: u64 }
    update: Update {
        p: Address, g: Address, m: Address, v: Address, mask: Address, old_mask: Address, powers: Address, norm: Address,
        flags: Address, n: u64, inv_loss_scale: f64, lr: f64, shrink: f64, weight_decay: f64, decoupled: u64, rates: Rates,
    }
    state_free: StateFree {
        p: Address, g: Address, mask: Address, flags: Address, n: u64, inv_loss_scale: f64, step: f64, shrink: f64,
        weight_decay: f64, decoupled: u64,
    }
    histogram: Histogram { items: Items, selection: Address, shift: u64 }
    digit: Digit { selection: Address, shift: u64 }
    ties: Ties { items: Items, selection: Address, ties: Address }
    mark: Mark { items: Items, selection: Address, ties: Address, mask: Address }
    scan: Scan { counts: Address, count: u64 }
    prefix_counts: PrefixCounts { mask: Address, n: u64 }
    upload: Upload { to: Address, count: u64, words: [u64; UPLOAD_WORDS] }
}
