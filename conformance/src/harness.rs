//! What a backend's author gives to the suite: how to open the device, how to put a tensor of the caller's there and get
//! it back. Everything else goes through [`Backend`].

use crate::host::Host;
use blockllm::{Backend, DType, View};

/// How results are held to the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Agreement {
    /// To the bit: correctly rounded arithmetic, nothing fused, the tree of A2.2 in f64.
    Bits,
    /// Masks, prefix counts, counters, step counts and powers to the bit; the rest within bounds that follow from what
    /// WGSL allows each operation.
    Bounds,
}

/// What a backend has done on its device since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Device buffers made (host buffers, where the device is the host), of scratch and uploads too.
    pub allocations: usize,
    /// Batches of work handed to the queue; 0 where operations run at the call.
    pub submissions: usize,
    /// Readbacks begun.
    pub readbacks: usize,
}

/// A backend under test.
pub trait Harness: Sized {
    /// Its name, as `REQUIRE_BACKENDS` has it.
    const NAME: &'static str;
    /// How its results are held to the reference.
    const AGREEMENT: Agreement;
    /// The backend.
    type Backend: Backend;
    /// Memory of the caller's on the device: one tensor. Best put at an odd offset into a larger allocation, as frameworks
    /// do, with other elements around it that [`Self::download`] checks are as they were.
    type Tensor;

    /// Opens the device.
    ///
    /// # Errors
    /// Why it is not to be had here: the tests are then listed as skipped, or fail where `REQUIRE_BACKENDS` names it.
    fn open() -> Result<Self, String>;
    /// A fresh backend on the device.
    fn backend(&mut self) -> Self::Backend;
    /// Whether blocks of this type can be trained on it.
    fn supports(dtype: DType) -> bool;
    /// Puts elements where kernels reach them.
    fn upload(&mut self, x: View<'_>) -> Self::Tensor;
    /// The elements as they are when all work that `backend` was given has run: it submits and waits.
    fn download(&mut self, backend: &mut Self::Backend, t: &Self::Tensor) -> Host;
    /// As a parameter.
    fn param(t: &mut Self::Tensor) -> <Self::Backend as Backend>::Param<'_>;
    /// As a gradient.
    fn grad(t: &Self::Tensor) -> <Self::Backend as Backend>::Grad<'_>;
    /// What the backend has done so far.
    fn counts(backend: &Self::Backend) -> Counts;
}

/// Runs a check on an open device. Where there is none, says so on standard output, past the test runner's capture.
///
/// # Panics
/// Where the environment's `REQUIRE_BACKENDS` (names separated by commas) has the backend and it cannot be opened.
pub fn with<H: Harness>(test: &str, check: impl FnOnce(&mut H)) {
    use std::io::Write;
    match H::open() {
        Ok(mut harness) => check(&mut harness),
        Err(why) => {
            let required = std::env::var("REQUIRE_BACKENDS").unwrap_or_default();
            let is_required = required.split(',').any(|name| name.trim() == H::NAME);
            assert!(!is_required, "REQUIRE_BACKENDS={required}: {} is not here: {why}", H::NAME);
            let _ = writeln!(std::io::stdout(), "SKIP {} {test}: {why}", H::NAME);
        }
    }
}
