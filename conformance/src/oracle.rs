//! The reference as a harness: the side that others are compared with, and the suite's own first backend.

use crate::harness::{Agreement, Counts, Harness};
use crate::host::Host;
use blockllm::{DType, Reference, View, ViewMut};

/// Core's reference backend over vectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle;

impl Harness for Oracle {
    const NAME: &'static str = "reference";
    const AGREEMENT: Agreement = Agreement::Bits;
    type Backend = Reference;
    type Tensor = Host;

    fn open() -> Result<Self, String> {
        Ok(Self)
    }

    fn backend(&mut self) -> Reference {
        Reference::default()
    }

    fn supports(dtype: DType) -> bool {
        dtype.compute().is_some()
    }

    fn upload(&mut self, x: View<'_>) -> Host {
        Host::from_view(x)
    }

    fn download(&mut self, _: &mut Reference, t: &Host) -> Host {
        t.clone()
    }

    fn param(t: &mut Host) -> ViewMut<'_> {
        t.view_mut()
    }

    fn grad(t: &Host) -> View<'_> {
        t.view()
    }

    /// It has no device: operations run at the call.
    fn counts(_: &Reference) -> Counts {
        Counts::default()
    }
}
