//! The suite: checks as generic functions over a [`Harness`](crate::harness::Harness), and a macro that makes tests of
//! them. Each operation is held to the reference from the same arena; then whole runs, the golden data, and what a step
//! may cost.

pub mod coming_and_going;
pub mod cost;
pub mod delivery;
pub mod golden;
pub mod golden_operations;
pub mod memory;
pub mod moving;
pub mod processed;
pub mod runs;
pub mod sealing;

/// Makes a test of each check of the suite for a [`Harness`](crate::harness::Harness). One line in a crate's
/// `tests/conformance.rs`:
///
/// ```
/// use blockllm_conformance::oracle::Oracle as MyHarness;
/// # #[cfg(test)]
/// blockllm_conformance::agreement!(MyHarness);
/// ```
#[macro_export]
macro_rules! agreement {
    ($harness:ty) => {
        $crate::agreement!(@each $harness:
            memory::buffers_hold_what_is_written, memory::readbacks_are_of_their_time,
            delivery::gather_packs_what_is_active, delivery::gather_adds_later_micro_batches,
            delivery::masks_are_of_the_largest, delivery::masks_of_ties_and_special_values, delivery::masks_of_large_blocks,
            delivery::scores_of_gradients, delivery::scores_at_every_magnitude, processed::scores_of_processed_gradients,
            sealing::guard_and_clip, sealing::the_guard_at_its_limits, sealing::counters, sealing::one_block_at_a_time,
            sealing::sums_in_the_order_that_is_asked_for, sealing::scores_enter_the_table,
            moving::clear_and_carry, moving::update, moving::update_of_coordinates_that_enter,
            moving::a_skipped_step_moves_nothing, moving::sign_steps, moving::sign_steps_of_special_values,
            moving::the_count_of_nans_saturates,
            runs::whole_steps, runs::streamed_in_any_order, runs::wider_types,
            coming_and_going::blocks_come_and_go, coming_and_going::moments_are_taken_over,
            coming_and_going::a_window_goes_on_elsewhere,
            golden::engine_traces, golden_operations::adam_as_pytorch, golden_operations::exact_masks,
            golden_operations::switch_trajectories,
            cost::a_plain_step_reads_nothing_and_allocates_nothing,
        );
    };
    (@each $harness:ty: $($module:ident::$check:ident),* $(,)?) => {
        $(
            #[test]
            fn $check() {
                $crate::harness::with::<$harness>(stringify!($check), $crate::agreement::$module::$check);
            }
        )*
    };
}
