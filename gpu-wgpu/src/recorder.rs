//! Records work into one command encoder until it is submitted.

use crate::control::{Chunk, Control, SLICE};
use crate::error::Error;
use crate::kernel::{Kernel, Kernels, Pipeline};
use crate::scope::{Answers, Scope};
use crate::window::Window;
use bytemuck::bytes_of;
use wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindingResource, Buffer, BufferDescriptor, BufferUsages, CommandEncoder, ComputePass,
    Device, Queue,
};

/// What was done on the device since the backend was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Buffers made, for the arena, scratch, control numbers and readbacks. What wgpu stages inside itself is not counted.
    pub buffers: usize,
    /// Submissions.
    pub submissions: usize,
    /// Readbacks begun.
    pub readbacks: usize,
    /// Kernels launched.
    pub launches: usize,
}

/// Bytes of the first control buffer.
const FIRST_CHUNK: u64 = 64 << 10;

/// A device, its queue, and work that is not submitted yet.
pub struct Recorder {
    // A pass ends before its encoder.
    pass: Option<ComputePass<'static>>,
    encoder: Option<CommandEncoder>,
    pub device: Device,
    queue: Queue,
    kernels: Kernels,
    chunks: Vec<Chunk>,
    /// Bound where a kernel reads, or writes, nothing: a buffer is bound in one way at a time.
    unread: Buffer,
    unwritten: Buffer,
    answers: Answers,
    pub counts: Counts,
    control_alignment: u64,
    storage_alignment: u64,
}

fn make(device: &Device, label: &str, size: u64, usage: BufferUsages) -> Buffer {
    device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

impl Recorder {
    pub fn new(device: Device, queue: Queue, kernels: Kernels) -> Result<Self, Error> {
        let limits = device.limits();
        let scope = Scope::open(&device);
        let empty = |label| make(&device, label, 256, BufferUsages::STORAGE);
        let mut new = Self {
            pass: None,
            encoder: None,
            unread: empty("unread"),
            unwritten: empty("unwritten"),
            queue,
            kernels,
            chunks: Vec::new(),
            answers: Answers::default(),
            counts: Counts { buffers: 2, ..Counts::default() },
            control_alignment: u64::from(limits.min_uniform_buffer_offset_alignment),
            storage_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            device,
        };
        new.close_scope(scope, "open the backend")?;
        Ok(new)
    }

    /// Catches the device's errors from here on.
    pub fn open_scope(&self) -> Scope {
        Scope::open(&self.device)
    }

    /// Ends it; the first error that is known.
    pub fn close_scope(&mut self, scope: Scope, operation: &'static str) -> Result<(), Error> {
        let known = self.answers.close(scope, operation);
        self.settle(known)
    }

    fn answers_so_far(&mut self) -> Result<(), Error> {
        let known = self.answers.check();
        self.settle(known)
    }

    fn settle(&self, known: Result<(), Error>) -> Result<(), Error> {
        match known {
            Err(Error::Launch { operation, .. }) if self.is_lost() => Err(Error::DeviceLost { operation }),
            other => other,
        }
    }

    /// Of a lost device, a native one says no more than that the buffers made since are invalid: so one is made to see. The
    /// callback that would tell is the caller's. A browser lets maps fail instead.
    fn is_lost(&self) -> bool {
        let scope = Scope::open(&self.device);
        let probe = make(&self.device, "probe", 4, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        probe.map_async(wgpu::MapMode::Read, .., |_| {});
        Answers::default().close(scope, "probe").is_err()
    }

    fn scoped<R>(&mut self, operation: &'static str, f: impl FnOnce(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        let scope = self.open_scope();
        let done = f(self);
        self.close_scope(scope, operation)?;
        done
    }

    /// Errors that came since, and whether all answers are in.
    pub fn check(&mut self) -> Result<bool, Error> {
        self.answers_so_far()?;
        Ok(self.answers.is_empty())
    }

    /// A buffer of zeros; `bytes` is a multiple of 4 and not 0.
    pub fn buffer(&mut self, label: &'static str, bytes: u64, usage: BufferUsages) -> Result<Buffer, Error> {
        let most = self.device.limits().max_buffer_size;
        if bytes > most {
            let message = format!("a buffer of {bytes} bytes, and the device has buffers of {most} at most");
            return Err(Error::OutOfMemory { operation: label, message });
        }
        let buffer = self.scoped(label, |s| Ok(make(&s.device, label, bytes, usage)))?;
        self.counts.buffers += 1;
        Ok(buffer)
    }

    /// Device memory that kernels and copies reach.
    pub fn storage(&mut self, label: &'static str, bytes: u64) -> Result<Buffer, Error> {
        self.buffer(label, bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST)
    }

    /// To bind where nothing is read.
    pub fn unread(&self) -> Window {
        Window::whole(&self.unread)
    }

    /// To bind where nothing is written.
    pub fn unwritten(&self) -> Window {
        Window::whole(&self.unwritten)
    }

    /// Bytes of the buffers that numbers of dispatches go up in.
    pub fn control_bytes(&self) -> u64 {
        self.chunks.iter().map(|c| c.buffer.size()).sum()
    }

    fn put(&mut self, data: &[u8], room: u64, alignment: u64) -> Result<(Buffer, u64), Error> {
        if let Some(chunk) = self.chunks.last_mut()
            && let Some(at) = chunk.push(data, room, alignment)
        {
            return Ok((chunk.buffer.clone(), at));
        }
        let last = self.chunks.last().map_or(FIRST_CHUNK, |c| 2 * c.buffer.size());
        let bytes = last.max(room.max(data.len() as u64).next_multiple_of(256));
        let usage = BufferUsages::UNIFORM | BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let mut chunk = Chunk::new(self.buffer("control numbers", bytes, usage)?);
        let at = chunk.push(data, room, alignment).unwrap_or(0);
        let buffer = chunk.buffer.clone();
        self.chunks.push(chunk);
        Ok((buffer, at))
    }

    /// Rows that a kernel reads, uploaded with the numbers of dispatches.
    pub fn table(&mut self, rows: &[u32]) -> Result<Window, Error> {
        let bytes = bytemuck::cast_slice(rows);
        let size = (bytes.len() as u64).max(4);
        let (buffer, at) = self.put(bytes, size, self.storage_alignment)?;
        Ok(Window::part(&buffer, at, size))
    }

    fn encoder(&mut self) -> &mut CommandEncoder {
        let device = &self.device;
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()))
    }

    /// For commands other than dispatches.
    pub fn commands(&mut self) -> &mut CommandEncoder {
        self.pass = None;
        self.encoder()
    }

    /// Records a kernel over storage windows, in the order of their declarations.
    pub fn launch(&mut self, kernel: Kernel, control: &Control, windows: &[Window], workgroups: u32) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        self.launch_compiled(kernels.get(kernel), control, windows, workgroups)
    }

    /// The same of any pipeline.
    pub fn launch_compiled(
        &mut self, compiled: &Pipeline, control: &Control, windows: &[Window], workgroups: u32,
    ) -> Result<(), Error> {
        let (buffer, at) = self.put(bytes_of(control), SLICE, self.control_alignment)?;
        let slice = Window::part(&buffer, 0, SLICE);
        let bindings = [&slice].into_iter().chain(windows).map(|w| BindingResource::Buffer(w.binding()));
        let entries: Vec<_> = (0..).zip(bindings).map(|(binding, resource)| BindGroupEntry { binding, resource }).collect();
        let group =
            self.device.create_bind_group(&BindGroupDescriptor { label: None, layout: &compiled.layout, entries: &entries });
        if self.pass.is_none() {
            self.pass = Some(self.encoder().begin_compute_pass(&Default::default()).forget_lifetime());
        }
        if let Some(pass) = &mut self.pass {
            pass.set_pipeline(&compiled.pipeline);
            pass.set_bind_group(0, &group, &[at as u32]);
            pass.dispatch_workgroups(workgroups, 1, 1);
        }
        self.counts.launches += 1;
        Ok(())
    }

    /// Hands over all that was recorded, if anything was.
    pub fn submit(&mut self) -> Result<(), Error> {
        self.pass = None;
        let Some(encoder) = self.encoder.take() else { return self.answers_so_far() };
        let used: u64 = self.chunks.iter().map(Chunk::used).sum();
        self.scoped("submit", |s| {
            s.chunks.iter_mut().for_each(|c| c.upload(&s.queue));
            s.queue.submit([encoder.finish()]);
            Ok(())
        })?;
        self.answers_so_far()?;
        self.counts.submissions += 1;
        if self.chunks.len() > 1 {
            // One that holds as much, so that the next submission of this size needs no other.
            self.chunks.clear();
            let usage = BufferUsages::UNIFORM | BufferUsages::STORAGE | BufferUsages::COPY_DST;
            let buffer = self.buffer("control numbers", (2 * used).next_power_of_two(), usage)?;
            self.chunks.push(Chunk::new(buffer));
        }
        Ok(())
    }

    /// Host bytes into a buffer, after all that was recorded. The queue would write before what is not submitted yet.
    pub fn write(&mut self, to: &Buffer, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.submit()?;
        self.scoped("write", |s| {
            s.queue.write_buffer(to, at, bytes);
            Ok(())
        })
    }
}
