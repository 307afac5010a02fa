//! Kernels: their sources, and pipelines made of them.
//!
//! A file of `shaders/` is one kernel. It names the files of `shaders/lib/` that it needs in a line `// library: ...`, and
//! its bindings' access is taken from their declarations, so that nothing is said twice.

use crate::control::Control;
use core::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, Device, PipelineCompilationOptions, PipelineLayoutDescriptor, ShaderModuleDescriptor,
    ShaderSource, ShaderStages,
};

macro_rules! kernels {
    ($($(#[$doc:meta])* $variant:ident = $file:literal),* $(,)?) => {
        /// A kernel; what it does is said in its file.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs)]
        pub enum Kernel {
            $($variant),*
        }

        /// By [`Kernel`]: name and source.
        const SOURCES: &[(&str, &str)] = &[$(($file, include_str!(concat!("../shaders/", $file, ".wgsl")))),*];
    };
}

kernels! {
    Advance = "advance",
    Carry = "carry",
    Clear = "clear",
    Coefficients = "coefficients",
    CountActive = "count_active",
    CountTies = "count_ties",
    EnterScores = "enter_scores",
    ExpandTiles = "expand_tiles",
    Fold = "fold",
    Gather = "gather",
    Histogram = "histogram",
    Inspect = "inspect",
    Mark = "mark",
    Pick = "pick",
    PrefixCounts = "prefix_counts",
    Score = "score",
    ScoreProcessed = "score_processed",
    Seal = "seal",
    StateFree = "state_free",
    SumCounts = "sum_counts",
    TileKeys = "tile_keys",
    Update = "update",
}

macro_rules! library {
    ($($file:literal),* $(,)?) => {
        const LIBRARY: &[(&str, &str)] = &[$(($file, include_str!(concat!("../shaders/lib/", $file, ".wgsl")))),*];
    };
}

library!(
    "coefficient",
    "contains",
    "control",
    "double",
    "element",
    "flag",
    "found",
    "gradient",
    "old_contains",
    "old_rank",
    "rank",
    "scan",
    "selection",
    "single",
    "sum_of_squares",
    "total",
    "wide",
);

/// A compiled kernel.
pub struct Pipeline {
    /// To dispatch.
    pub pipeline: ComputePipeline,
    /// Binding 0 holds the control slice at a dynamic offset, the others storage buffers in order.
    pub layout: BindGroupLayout,
}

/// The pipelines of one device, each made when it is first used. A handle: optimizers on one device share them by clones.
#[derive(Clone)]
pub struct Kernels(Arc<Pipelines>);

struct Pipelines {
    device: Device,
    made: [OnceLock<Pipeline>; SOURCES.len()],
}

impl core::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let made = self.0.made.iter().filter(|p| p.get().is_some()).count();
        write!(f, "Kernels({made} of {} made)", SOURCES.len())
    }
}

impl Kernels {
    /// Of a device; compiles nothing yet.
    // In a browser nothing of wgpu's crosses threads, and neither does this.
    #[cfg_attr(target_arch = "wasm32", expect(clippy::arc_with_non_send_sync))]
    pub fn new(device: &Device) -> Self {
        Self(Arc::new(Pipelines { device: device.clone(), made: [const { OnceLock::new() }; SOURCES.len()] }))
    }

    /// Compiles a kernel, where that was not done before.
    pub(crate) fn get(&self, kernel: Kernel) -> &Pipeline {
        let (name, source) = SOURCES[kernel as usize];
        self.0.made[kernel as usize].get_or_init(|| compile_source(&self.0.device, name, source))
    }
}

/// A kernel's source with its libraries.
fn whole(source: &str) -> String {
    let line = source.lines().find_map(|l| l.strip_prefix("// library:")).unwrap_or_default();
    let library = |name: &str| LIBRARY.iter().find(|(n, _)| *n == name).map_or("", |(_, text)| text);
    line.split_whitespace().map(library).chain([source]).collect::<Vec<_>>().join("\n")
}

/// Whether each storage binding is only read, in order.
fn accesses(source: &str) -> impl Iterator<Item = bool> {
    source.lines().filter(|l| l.contains("var<storage")).map(|l| l.contains("var<storage, read>"))
}

fn entry(binding: u32, ty: BufferBindingType, control: bool) -> BindGroupLayoutEntry {
    let min_binding_size = control.then(|| NonZeroU64::new(size_of::<Control>() as u64)).flatten();
    BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: control, min_binding_size },
        count: None,
    }
}

/// A kernel of this source.
pub(crate) fn compile_source(device: &Device, name: &str, source: &str) -> Pipeline {
    let module = device
        .create_shader_module(ShaderModuleDescriptor { label: Some(name), source: ShaderSource::Wgsl(whole(source).into()) });
    let storage = |(i, read_only): (u32, bool)| entry(i + 1, BufferBindingType::Storage { read_only }, false);
    let entries: Vec<_> =
        [entry(0, BufferBindingType::Uniform, true)].into_iter().chain((0..).zip(accesses(source)).map(storage)).collect();
    let layout = device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: None,
        compilation_options: PipelineCompilationOptions::default(),
        cache: None,
    });
    Pipeline { pipeline, layout }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_name_libraries_that_exist_and_bind_at_most_eight_buffers() {
        for (name, source) in SOURCES {
            let line =
                source.lines().find_map(|l| l.strip_prefix("// library:")).unwrap_or_else(|| panic!("{name}: no library line"));
            for library in line.split_whitespace() {
                assert!(LIBRARY.iter().any(|(n, _)| *n == library), "{name}: {library}");
            }
            assert!(line.split_whitespace().any(|l| l == "control"), "{name}");
            // What every WebGPU device has.
            assert!((1..=8).contains(&accesses(source).count()), "{name}");
        }
    }

    #[test]
    fn the_control_slice_has_the_same_words_on_both_sides() {
        let text = LIBRARY.iter().find(|(n, _)| *n == "control").map(|(_, t)| *t).expect("control.wgsl");
        let fields = text.lines().filter(|l| l.starts_with("    ") && l.contains(": ")).count();
        assert_eq!(fields * 4, size_of::<Control>());
    }
}
