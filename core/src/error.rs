//! One error type. Each message is one line that names the block and the numbers that disagree.

use crate::tensor::DType;
use alloc::string::String;
use core::fmt::{self, Debug, Display};

/// What kind of failure a backend's own error is, whatever its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Memory could not be had.
    OutOfMemory,
    /// The device is gone; nothing on it can be read again.
    DeviceLost,
    /// A kernel could not be launched.
    Launch,
    /// The device or the backend does not have what was asked for: a type, a choice of the configuration.
    Unsupported,
    /// The caller's tensor could not be reached.
    Tensor,
    /// Anything else.
    Other,
}

/// A backend's error.
pub trait BackendError: Debug + Display {
    /// Its portable kind.
    fn kind(&self) -> ErrorKind;
}

impl BackendError for core::convert::Infallible {
    fn kind(&self) -> ErrorKind {
        match *self {}
    }
}

/// What went wrong, where. After every error but [`Error::Backend`] in mid-step everything is as before the call.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Error<E> {
    /// A field of the configuration is out of its range.
    Config {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Two blocks of one name.
    DuplicateName {
        /// The name.
        block: String,
    },
    /// No trainable block has a coordinate.
    NothingToTrain,
    /// Blocks of one optimizer must share a compute type (A7.1).
    MixedComputeTypes {
        /// The first block that differs.
        block: String,
        /// Its element type.
        dtype: DType,
        /// The compute type of the blocks before it.
        compute: DType,
    },
    /// A member of a group cannot be always active (A1.2).
    AlwaysActiveInGroup {
        /// The block.
        block: String,
        /// Its group.
        group: String,
    },
    /// Always-active blocks are larger than the budget (A1.2).
    Budget {
        /// Coordinates of the always-active blocks.
        always_active: usize,
        /// The budget n_s.
        budget: usize,
    },
    /// `Fill::Whole`, and not even the smallest unit fits (A4.2).
    NothingFits {
        /// Coordinates of the smallest unit.
        smallest: usize,
        /// What the budget leaves beside always-active blocks.
        room: usize,
    },
    /// No such block.
    UnknownBlock {
        /// Its number.
        block: u32,
        /// How many there are.
        blocks: usize,
    },
    /// The tensor's length is not the block's.
    Length {
        /// The block.
        block: String,
        /// What was handed over.
        tensor: Tensor,
        /// Elements of the block.
        want: usize,
        /// Elements of the tensor.
        got: usize,
    },
    /// The tensor's element type is not the block's.
    Type {
        /// The block.
        block: String,
        /// What was handed over.
        tensor: Tensor,
        /// The block's element type.
        want: DType,
        /// The tensor's.
        got: DType,
    },
    /// A strided tensor: its elements cannot be read as one run.
    NotContiguous {
        /// The block.
        block: String,
        /// What was handed over.
        tensor: Tensor,
    },
    /// A gradient that this step did not ask for.
    NotWanted {
        /// The block.
        block: String,
    },
    /// A gradient or an update for the second time in one step.
    Twice {
        /// The block.
        block: String,
    },
    /// A gradient that this step asked for has not come.
    MissingGradient {
        /// The block.
        block: String,
    },
    /// A block that moves in this step came without its parameter.
    MissingParameter {
        /// The block.
        block: String,
    },
    /// Parameters are not in ascending order of their blocks.
    ParameterOrder {
        /// The block that is out of place.
        block: String,
    },
    /// A number of this step is out of its range.
    Step {
        /// Which.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it may be, in the compute type.
        allowed: &'static str,
    },
    /// The call does not fit where the step stands.
    Order {
        /// The call.
        call: &'static str,
        /// What has to come first.
        need: &'static str,
    },
    /// A decision or a switch waits for the device: poll (A3.6).
    Pending,
    /// The policy makes no decisions, so none can be forced.
    NoDecisions,
    /// A policy of the user's own chose what it cannot have ([`Choose`](crate::policy::Choose)). Where that was at the end
    /// of a step: the step stands, and so does the set.
    Policy {
        /// The policy, as its `Debug` shows it.
        policy: String,
        /// What is wrong with its answer.
        problem: String,
    },
    /// The block was removed.
    Removed {
        /// The block.
        block: String,
    },
    /// A forced decision could not be made: a unit has no finite score yet (A3.3). The step stands.
    Void {
        /// First block of the first unit without one.
        block: String,
        /// Units without one.
        units: usize,
    },
    /// The policy needs losses, and this step brought none since the last one.
    MissingLoss,
    /// Too many steps in a row were skipped because gradients were not finite (A6.4). The step stands.
    GuardStreak {
        /// Skipped steps in a row.
        streak: u32,
        /// The configured limit.
        limit: u32,
    },
    /// Freezing a frozen block, or thawing a trainable one.
    AlreadySo {
        /// The block.
        block: String,
        /// "frozen" or "trainable".
        state: &'static str,
    },
    /// A record cannot be restored here. The optimizer is as it was.
    Record {
        /// The leaf or field.
        leaf: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A backend failed in mid-step earlier: parameters may be half updated. Restore a record.
    Poisoned,
    /// The backend's own error, and what it was doing.
    Backend {
        /// The operation.
        operation: &'static str,
        /// The error.
        error: E,
    },
}

/// Which of a block's tensors an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Tensor {
    /// The parameter.
    Parameter,
    /// The gradient.
    Gradient,
}

impl Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parameter => "parameter",
            Self::Gradient => "gradient",
        })
    }
}

impl<E: Display> Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field, value, allowed } => write!(f, "config: {field} = {value} must be {allowed}"),
            Self::DuplicateName { block } => write!(f, "two blocks are named {block}"),
            Self::NothingToTrain => write!(f, "no trainable block has a coordinate"),
            Self::MixedComputeTypes { block, dtype, compute } => {
                write!(f, "block {block}: {dtype} beside blocks computed in {compute}; f64 does not mix with other types")
            }
            Self::AlwaysActiveInGroup { block, group } => {
                write!(f, "block {block}: a member of group {group} cannot be always active")
            }
            Self::Budget { always_active, budget } => {
                write!(f, "always-active blocks hold {always_active} coordinates, the budget is {budget}: lower the sparsity")
            }
            Self::NothingFits { smallest, room } => {
                write!(f, "no unit fits whole: the smallest has {smallest} coordinates, there is room for {room}")
            }
            Self::UnknownBlock { block, blocks } => write!(f, "block {block} does not exist: there are {blocks}"),
            Self::Length { block, tensor, want, got } => write!(f, "block {block}: its {tensor} has {got} elements, not {want}"),
            Self::Type { block, tensor, want, got } => write!(f, "block {block}: its {tensor} is {got}, not {want}"),
            Self::NotContiguous { block, tensor } => write!(f, "block {block}: its {tensor} is not contiguous"),
            Self::NotWanted { block } => write!(f, "block {block}: this step did not ask for its gradient"),
            Self::Twice { block } => write!(f, "block {block}: a second time in one step"),
            Self::MissingGradient { block } => write!(f, "block {block}: this step needs its gradient and has none"),
            Self::MissingParameter { block } => write!(f, "block {block}: this step moves it and has no parameter"),
            Self::ParameterOrder { block } => write!(f, "block {block}: parameters must come in ascending order of blocks"),
            Self::Step { field, value, allowed } => write!(f, "step: {field} = {value} must be {allowed} in the compute type"),
            Self::Order { call, need } => write!(f, "{call}: {need}"),
            Self::Pending => write!(f, "the last step's decision is not known yet: poll first"),
            Self::Policy { policy, problem } => write!(f, "policy {policy}: {problem}"),
            Self::Removed { block } => write!(f, "block {block} was removed"),
            Self::NoDecisions => write!(f, "this policy makes no decisions: none can be forced"),
            Self::Void { block, units } => {
                write!(f, "no decision: {units} units have no finite score yet, the first is that of block {block}")
            }
            Self::MissingLoss => write!(f, "the policy decides by the loss, and no loss was given: hand one over with each step"),
            Self::GuardStreak { streak, limit } => {
                write!(f, "{streak} steps in a row were skipped for gradients that are not finite (limit {limit})")
            }
            Self::AlreadySo { block, state } => write!(f, "block {block} is {state} already"),
            Self::Record { leaf, problem } => write!(f, "record: {leaf}: {problem}"),
            Self::Poisoned => write!(f, "an earlier failure left a step half done: restore a record"),
            Self::Backend { operation, error } => write!(f, "{operation}: {error}"),
        }
    }
}

impl<E: Debug + Display> core::error::Error for Error<E> {}

impl Error<core::convert::Infallible> {
    /// The same error beside a backend's own; for what goes wrong on the host's side alone.
    pub(crate) fn host<T>(self) -> Error<T> {
        macro_rules! same {
            ($($name:ident { $($field:ident),* }),* ; $($unit:ident),*) => {
                match self {
                    $(Self::$name { $($field),* } => Error::$name { $($field),* },)*
                    $(Self::$unit => Error::$unit,)*
                    Self::Backend { error, .. } => match error {},
                }
            };
        }
        same!(
            Config { field, value, allowed }, DuplicateName { block }, MixedComputeTypes { block, dtype, compute },
            AlwaysActiveInGroup { block, group }, Budget { always_active, budget }, NothingFits { smallest, room },
            UnknownBlock { block, blocks }, Length { block, tensor, want, got }, Type { block, tensor, want, got },
            NotContiguous { block, tensor }, NotWanted { block }, Twice { block }, MissingGradient { block },
            MissingParameter { block }, ParameterOrder { block }, Step { field, value, allowed }, Order { call, need },
            Policy { policy, problem }, Removed { block },
            Void { block, units }, GuardStreak { streak, limit }, AlreadySo { block, state }, Record { leaf, problem };
            NothingToTrain, Pending, NoDecisions, MissingLoss, Poisoned
        )
    }
}
