//! Errors of the device, caught by error scopes around each operation of ours: the caller's handlers of uncaptured errors
//! and of a lost device stay in place.
//!
//! A native device answers a scope at once. A browser answers later: its answers are kept and looked at by every later
//! submission and poll, and no readback counts as done before they are all in.

use crate::error::Error;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use wgpu::{Device, ErrorFilter, ErrorScopeGuard};

#[cfg(not(target_arch = "wasm32"))]
type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>> + Send>>;
#[cfg(target_arch = "wasm32")]
type Answer = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

/// Open scopes.
pub struct Scope([ErrorScopeGuard; 3]);

impl Scope {
    pub fn open(device: &Device) -> Self {
        Self([ErrorFilter::OutOfMemory, ErrorFilter::Validation, ErrorFilter::Internal].map(|f| device.push_error_scope(f)))
    }
}

/// Answers that are still to come, each with the operation that it is about.
#[derive(Default)]
pub struct Answers(Vec<(&'static str, Answer)>);

impl Answers {
    /// Closes the scopes of an operation: the first error that is known at once. The rest is kept for [`Self::check`].
    pub fn close(&mut self, scope: Scope, operation: &'static str) -> Result<(), Error> {
        // In the reverse order of their opening.
        let [memory, validation, internal] = scope.0;
        let answers: [Answer; 3] = [Box::pin(internal.pop()), Box::pin(validation.pop()), Box::pin(memory.pop())];
        let mut closed = Self(answers.map(|a| (operation, a)).into());
        let known = closed.check();
        self.0.append(&mut closed.0);
        known
    }

    /// Looks at what has come; the first error of it.
    pub fn check(&mut self) -> Result<(), Error> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut failed = None;
        self.0.retain_mut(|(operation, answer)| match answer.as_mut().poll(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(error) => {
                failed = failed.take().or(error.map(|e| Error::from_wgpu(operation, &e)));
                false
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// All have come.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
