//! The abstract tensor: what the engine must know of memory that belongs to the caller.
//!
//! A tensor is a flat, contiguous run of elements. The engine never owns, copies or reallocates it. On a device it is
//! whatever the [`Backend`](crate::Backend) says it is; for memory that the host can reach there is [`HostTensors`],
//! over which the reference backend works, so that a framework's adapter is a few lines.

use core::convert::Infallible;
use core::fmt::{self, Debug, Display};
use half::{bf16, f16};

/// Element types. Parameters and gradients are floats (A7.1); `U32` is for masks and counters in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Unsigned 32-bit words.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::F64 => 8,
        }
    }

    /// The type in which a block of this type is computed (A7.1): f64 for f64, f32 for the other floats.
    pub const fn compute(self) -> Option<Self> {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 => Some(Self::F32),
            Self::F64 => Some(Self::F64),
            Self::U32 => None,
        }
    }

    /// The name used in records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::U32 => "u32",
        }
    }
}

impl Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the driver checks of a tensor before any kernel sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// Elements.
    pub len: usize,
    /// Element type.
    pub dtype: DType,
    /// Whether the elements lie one after another in memory, in order.
    pub contiguous: bool,
}

/// Host elements to read, tagged once per block rather than per element.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum View<'a> {
    /// Half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
    /// Words.
    U32(&'a [u32]),
}

/// Host elements to write.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum ViewMut<'a> {
    /// Half precision.
    F16(&'a mut [f16]),
    /// bfloat16.
    Bf16(&'a mut [bf16]),
    /// Single precision.
    F32(&'a mut [f32]),
    /// Double precision.
    F64(&'a mut [f64]),
    /// Words.
    U32(&'a mut [u32]),
}

macro_rules! each {
    ($self:expr, $s:ident => $e:expr) => {
        match $self {
            Self::F16($s) => $e,
            Self::Bf16($s) => $e,
            Self::F32($s) => $e,
            Self::F64($s) => $e,
            Self::U32($s) => $e,
        }
    };
}

impl View<'_> {
    /// Elements.
    pub fn len(&self) -> usize {
        each!(self, s => s.len())
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::U32(_) => DType::U32,
        }
    }

    /// Length and type; a slice is contiguous.
    pub fn info(&self) -> Info {
        Info { len: self.len(), dtype: self.dtype(), contiguous: true }
    }
}

impl ViewMut<'_> {
    /// The same elements, to read.
    pub fn as_view(&self) -> View<'_> {
        match self {
            Self::F16(s) => View::F16(s),
            Self::Bf16(s) => View::Bf16(s),
            Self::F32(s) => View::F32(s),
            Self::F64(s) => View::F64(s),
            Self::U32(s) => View::U32(s),
        }
    }

    /// A shorter borrow of the same elements.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        match self {
            Self::F16(s) => ViewMut::F16(s),
            Self::Bf16(s) => ViewMut::Bf16(s),
            Self::F32(s) => ViewMut::F32(s),
            Self::F64(s) => ViewMut::F64(s),
            Self::U32(s) => ViewMut::U32(s),
        }
    }

    /// Copies `source` here.
    ///
    /// # Panics
    /// Where types or lengths differ: the caller has checked both, so it is a bug.
    pub fn copy_from(self, source: View<'_>) {
        match (self, source) {
            (Self::F16(d), View::F16(s)) => d.copy_from_slice(s),
            (Self::Bf16(d), View::Bf16(s)) => d.copy_from_slice(s),
            (Self::F32(d), View::F32(s)) => d.copy_from_slice(s),
            (Self::F64(d), View::F64(s)) => d.copy_from_slice(s),
            (Self::U32(d), View::U32(s)) => d.copy_from_slice(s),
            (d, s) => panic!("copy of {} into {}", s.dtype(), d.as_view().dtype()),
        }
    }
}

/// A framework's tensors in memory that the host can reach, ONE at a time.
///
/// A backend with threads may be inside the callbacks of several tensors at once, nested in one another or on threads of its
/// own: what a parameter's callback locks for itself alone, no other tensor of the step may need.
///
/// The types are associated with a marker of the adapter's own rather than implemented on the tensor: the orphan rule
/// lets no adapter implement a trait of ours for a framework's type.
///
/// ```
/// use blockllm::{HostTensors, Info, View, ViewMut};
/// use std::{cell::RefCell, convert::Infallible, rc::Rc};
///
/// type Foreign = Rc<RefCell<Vec<f32>>>; // a framework's tensor
/// struct Framework;
/// impl HostTensors for Framework {
///     type Error = Infallible;
///     type Param<'a> = Foreign;
///     type Grad<'a> = Foreign;
///     fn param_info(p: &Foreign) -> Info {
///         View::F32(&p.borrow()).info()
///     }
///     fn grad_info(g: &Foreign) -> Info {
///         View::F32(&g.borrow()).info()
///     }
///     fn read<R>(g: &Foreign, f: impl FnOnce(View<'_>) -> R) -> Result<R, Infallible> {
///         Ok(f(View::F32(&g.borrow())))
///     }
///     fn modify<R>(p: &mut Foreign, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Infallible> {
///         Ok(f(ViewMut::F32(&mut p.borrow_mut())))
///     }
/// }
/// let mut p: Foreign = Rc::new(RefCell::new(vec![1.0, 2.0]));
/// Framework::modify(&mut p, |x| assert_eq!(x.as_view().len(), 2)).unwrap();
/// ```
pub trait HostTensors {
    /// What the framework's access can fail with.
    type Error: Debug + Display;
    /// A parameter, to read and write in place.
    type Param<'a>;
    /// A gradient, to read.
    type Grad<'a>;
    /// Length, type and contiguity of a parameter.
    fn param_info(p: &Self::Param<'_>) -> Info;
    /// Length, type and contiguity of a gradient.
    fn grad_info(g: &Self::Grad<'_>) -> Info;
    /// Calls `f` with the gradient's elements.
    ///
    /// # Errors
    /// The framework's own; `f` was then not called.
    fn read<R>(g: &Self::Grad<'_>, f: impl FnOnce(View<'_>) -> R) -> Result<R, Self::Error>;
    /// Calls `f` with the parameter's elements, which it may change in place.
    ///
    /// # Errors
    /// The framework's own; `f` was then not called.
    fn modify<R>(p: &mut Self::Param<'_>, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Self::Error>;
}

/// Plain slices of the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slices;

impl HostTensors for Slices {
    type Error = Infallible;
    type Param<'a> = ViewMut<'a>;
    type Grad<'a> = View<'a>;

    fn param_info(p: &ViewMut<'_>) -> Info {
        p.as_view().info()
    }

    fn grad_info(g: &View<'_>) -> Info {
        g.info()
    }

    fn read<R>(g: &View<'_>, f: impl FnOnce(View<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(*g))
    }

    fn modify<R>(p: &mut ViewMut<'_>, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(p.reborrow()))
    }
}
