//! Records: exact resume between steps, and everything that can be wrong with a record or a file.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

mod common;

use blockllm::record::file::{self, FileError, from_bytes, to_bytes};
use blockllm::record::{FORMAT, Leaf, LeafType};
use blockllm::{
    Across, BlockSpec, Config, Decay, Error, Fill, Inactive, MaskKind, Optimizer, Policy, ProbeOrder, Record, Reference, Slices,
    Step, Trigger, View,
};
use common::*;
use std::io::{self, Write};

type Never = blockllm::reference::HostError<std::convert::Infallible>;

fn config() -> Config {
    Config { sparsity: 0.6, patience: 3, policy: Policy::BlockLlm(Trigger::Period(4)), seed: 5, ..Config::default() }
}

/// A good part of what can be chosen.
fn configs() -> Vec<Config> {
    let base = Config { weight_decay: 0.02, clip: Some(3.0), ..config() };
    let frozen = Config { inactive: Inactive::Frozen, probes_per_step: Some(2), ..base.clone() };
    vec![
        base.clone(),
        Config { across: Across::Reset, ..base.clone() },
        Config { mask: MaskKind::Tile(8), fill: Fill::Uniform, ..base.clone() },
        frozen.clone(),
        Config { policy: Policy::BlockLlm(Trigger::Patience), probe_order: ProbeOrder::Random, ..frozen.clone() },
        Config { fill: Fill::Whole, across: Across::Reset, decay: Decay::L2, ..frozen },
        Config { policy: Policy::Full, sparsity: 0.0, ..base },
    ]
}

/// Steps some of which are skipped, so that switches are delayed.
fn drive(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], t: u64) {
    let mut g = gradients(t + 1);
    if mix(t).is_multiple_of(5) {
        g.iter_mut().for_each(|g| g[0] = f32::INFINITY);
    }
    let step = Step { lr: 0.01, loss: Some(2.0 - (t % 5) as f64 * 0.1), inv_loss_scale: 0.5, micro_batches: 1 };
    let _ = o.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(p)).unwrap();
    o.wait().unwrap();
}

#[test]
fn a_run_cut_anywhere_goes_on_to_the_bit() {
    for config in configs() {
        let (mut o, mut p) = (optimizer(config.clone()), parameters());
        let (mut records, mut params) = (vec![], vec![]);
        for t in 0..40 {
            records.push(to_bytes(&o.save().unwrap()).unwrap());
            params.push(p.clone());
            drive(&mut o, &mut p, t);
        }
        let end = (bits(&p), o.save().unwrap());
        for cut in 0..40 {
            let (mut again, mut q) = (optimizer(config.clone()), params[cut].clone());
            // Another run's leftovers must not matter.
            drive(&mut again, &mut parameters(), 3);
            again.restore(&from_bytes(&records[cut]).unwrap()).unwrap();
            (cut as u64..40).for_each(|t| drive(&mut again, &mut q, t));
            assert!((bits(&q), again.save().unwrap()) == end, "cut at {cut}, {config:?}");
        }
    }
}

fn trained() -> (Optimizer<Reference>, Vec<Vec<f32>>) {
    let (mut o, mut p) = (optimizer(config()), parameters());
    run(&mut o, &mut p, 0..13);
    (o, p)
}

#[test]
fn every_altered_byte_and_every_cut_is_noticed() {
    let bytes = to_bytes(&trained().0.save().unwrap()).unwrap();
    let good = from_bytes(&bytes).unwrap();
    for i in 0..bytes.len() {
        for flip in [1u8, 0x2a, 0x80] {
            let mut altered = bytes.clone();
            altered[i] ^= flip;
            assert!(from_bytes(&altered).is_err(), "byte {i} ^ {flip:#x}");
        }
        assert!(from_bytes(&bytes[..i]).is_err(), "cut at {i}");
    }
    assert!(from_bytes(&[bytes.clone(), vec![0]].concat()).is_err());
    assert_eq!(good, trained().0.save().unwrap());
}

#[test]
fn foreign_and_newer_files_are_named_for_what_they_are() {
    let message = |bytes: &[u8]| from_bytes(bytes).unwrap_err().to_string();
    assert!(message(b"once upon a time").starts_with("not a whole record"));
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2]).unwrap();
    let foreign = safetensors::serialize([("x", view)], None).unwrap();
    assert!(message(&foreign).contains("not written by this crate"), "{}", message(&foreign));
    let bytes = to_bytes(&trained().0.save().unwrap()).unwrap();
    let text = format!("format {FORMAT}").into_bytes();
    let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
    let mut newer = bytes;
    newer[at + text.len() - 1] = b'7';
    assert!(message(&newer).contains(&format!("format 7, this crate reads {FORMAT}")), "{}", message(&newer));
}

/// The error of restoring an altered record, which must change nothing.
fn refuses(alter: impl Fn(&mut Vec<Leaf>)) -> (String, String) {
    let (mut o, _) = trained();
    let before = o.save().unwrap();
    let mut leaves = before.clone().into_leaves();
    alter(&mut leaves);
    let error = o.restore(&Record::from_leaves(leaves)).unwrap_err();
    assert_eq!(o.save().unwrap(), before, "a refused record changed the optimizer");
    match error {
        Error::Record { leaf, problem } => (leaf, problem),
        other => panic!("{other}"),
    }
}

fn named<'a>(leaves: &'a mut [Leaf], name: &str) -> &'a mut Leaf {
    leaves.iter_mut().find(|l| l.name.starts_with(name)).unwrap()
}

#[test]
fn what_does_not_fit_is_named_and_the_optimizer_is_as_it_was() {
    for leaf in ["format", "config", "host", "losses", "cursor", "flags", "norm", "block/w3", "m/", "v/", "mask/"] {
        let (named_leaf, problem) = refuses(|l| l.retain(|x| !x.name.starts_with(leaf)));
        assert!(named_leaf.starts_with(leaf) && problem == "is missing", "{leaf}: {named_leaf} {problem}");
    }
    let set = |name: &'static str, word: usize, to: u64| {
        move |l: &mut Vec<Leaf>| named(l, name).data[8 * word..8 * word + 8].copy_from_slice(&to.to_le_bytes())
    };
    assert_eq!(refuses(set("format", 0, 99)).1, format!("version [99], this crate reads {FORMAT}"));
    assert!(refuses(set("host", 6, 1)).1.starts_with("its budget is 1"));
    assert!(refuses(set("host", 3, 0)).1.contains("losses do not fit"));
    assert!(refuses(set("block/w2", 1, 91)).1.contains("its shape is [1, 91], here it is [1, 90]"));
    assert!(refuses(set("block/w2", 2, 4)).1.contains("element type"));
    assert!(refuses(set("block/w2", 4, 91)).1.contains("91 active coordinates of 90"));
    assert!(refuses(set("block/w2", 11, 91)).1.contains("another group"));
    let (leaf, problem) = refuses(|l| named(l, "block/w4").name = "block/other".into());
    assert!(leaf.starts_with("block/"), "{leaf}: {problem}");
    assert!(refuses(|l| named(l, "cursor").data = b"nobody".to_vec()).1.contains("no unit is named \"nobody\""));
    let (leaf, problem) = refuses(|l| named(l, "m/").dtype = LeafType::U32);
    assert!(leaf.starts_with("m/") && problem == "holds U32, not F32");
    assert!(refuses(|l| drop(named(l, "v/").data.drain(..4))).1.contains("elements, not"));
    assert!(refuses(|l| named(l, "mask/").data[0] ^= 1).1.starts_with("not a mask of"));
}

#[test]
fn counts_that_no_run_reaches_are_refused() {
    let set = |name: &'static str, word: usize, to: u64| {
        refuses(move |l| named(l, name).data[8 * word..8 * word + 8].copy_from_slice(&to.to_le_bytes()))
    };
    for (name, word) in [("host", 0), ("host", 1), ("host", 2), ("block/w2", 6), ("block/w2", 12), ("block/w2", 16)] {
        assert_eq!(set(name, word, u64::MAX).1, "a count that no run reaches", "{name} {word}");
    }
    assert!(set("block/w2", 15, 1e9f64.to_bits()).1.starts_with("its score is of step 1000000000"));
    assert!(refuses(|l| named(l, "losses").data[..8].copy_from_slice(&f64::NAN.to_le_bytes())).1.contains("not finite"));
    assert!(refuses(|l| named(l, "mask/").data.fill(0)).1.starts_with("not a mask of"));
}

#[test]
fn what_contradicts_itself_or_this_policy_is_refused() {
    let set = |name: &'static str, word: usize, to: u64| {
        refuses(move |l| named(l, name).data[8 * word..8 * word + 8].copy_from_slice(&to.to_le_bytes())).1
    };
    let (o, _) = trained();
    let active: &'static str = format!("block/w{}", o.current().regions[0].block).leak();
    assert!(set(active, 3, 1).contains("active coordinates of"), "frozen and active");
    assert_eq!(set("host", 15, 3), "a stage that this policy does not have");
    // More active than the budget, as no set of the record says it was.
    let whole = |l: &mut Vec<Leaf>| {
        for (b, n) in SIZES.iter().enumerate() {
            let words = &mut named(l, &format!("block/w{b}")).data;
            words[8 * 5..8 * 6].copy_from_slice(&(*n as u64).to_le_bytes());
        }
        named(l, "host").data[8 * 5..8 * 6].copy_from_slice(&1u64.to_le_bytes());
    };
    let problem = refuses(whole).1;
    assert!(problem.starts_with("its active sets need 254 coordinates"), "{problem}");
    // A policy without scores has no stage but training, and no unit twice in its round.
    let cyclic = Config { policy: Policy::Cyclic { period: 2, order: blockllm::Order::Random }, ..config() };
    let (mut o, mut p) = (optimizer(cyclic.clone()), parameters());
    run(&mut o, &mut p, 0..3);
    let mut check = |f: &dyn Fn(&mut Vec<Leaf>)| {
        let mut leaves = o.save().unwrap().into_leaves();
        f(&mut leaves);
        let mut other = optimizer(cyclic.clone());
        let before = other.save().unwrap();
        let error = other.restore(&Record::from_leaves(leaves)).unwrap_err().to_string();
        assert!(other.save().unwrap() == before, "{error}");
        error
    };
    let scan = check(&|l| named(l, "host").data[8 * 15..8 * 16].copy_from_slice(&2u64.to_le_bytes()));
    assert!(scan.contains("a stage that this policy does not have"), "{scan}");
    let twice = check(&|l| named(l, "round").data.copy_within(..8, 8));
    assert!(twice.contains("no round of a policy"), "{twice}");
}

#[test]
fn another_configuration_is_refused_by_its_field() {
    let record = trained().0.save().unwrap();
    let problem = |config: Config| match optimizer(config).restore(&record) {
        Err(Error::Record { leaf, problem }) if leaf == "config" => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(Config { seed: 6, ..config() }), "the record was made with seed = 5, here it is seed = 6");
    assert!(problem(Config { across: Across::Reset, ..config() }).contains("across = Carry"));
    assert!(problem(Config { betas: [0.9, 0.99], ..config() }).contains("betas = [0.9, 0.999]"));
}

#[test]
fn a_renamed_or_regrouped_block_is_named() {
    let record = trained().0.save().unwrap();
    let error = |change: &dyn Fn(&mut BlockSpec)| {
        let mut specs = specs();
        change(&mut specs[1]);
        let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, config()).unwrap();
        o.restore(&record).unwrap_err().to_string()
    };
    assert_eq!(error(&|s| s.name = "new".into()), "record: block/w1: no block here has this name");
    assert_eq!(error(&|s| s.group = Some("g".into())), "record: block/w1: it was in another group");
    assert_eq!(error(&|s| s.shape = [7, 1]), "record: block/w1: its shape is [1, 7], here it is [7, 1]");
}

#[test]
fn a_failing_disk_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let (mut o, mut p) = trained();
    file::save(&path, &o.save().unwrap()).unwrap();
    let old = std::fs::read(&path).unwrap();
    run(&mut o, &mut p, 13..20);
    let new = to_bytes(&o.save().unwrap()).unwrap();
    for n in [0, 1, new.len() / 2, new.len() - 1] {
        let error = file::replace(&path, |f| {
            f.write_all(&new[..n])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(matches!(error, Err(FileError::Io { operation: "write", .. })));
        assert_eq!(std::fs::read(&path).unwrap(), old);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a leftover after {n} bytes");
    }
    assert_eq!(file::load(&path).unwrap(), from_bytes(&old).unwrap());
    let missing = file::save(&folder.path().join("no/such/folder"), &o.save().unwrap()).unwrap_err().to_string();
    assert!(missing.starts_with("create "), "{missing}");
}

#[cfg(unix)]
#[test]
fn saving_over_the_loaded_file_also_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("run"), folder.path().join("link"));
    let (mut o, mut p) = trained();
    file::save(&path, &o.save().unwrap()).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    o.restore(&file::load(&link).unwrap()).unwrap();
    run(&mut o, &mut p, 13..14);
    let saved = o.save().unwrap();
    file::save(&link, &saved).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(file::load(&path).unwrap(), saved);
    std::thread::scope(|s| (0..2).for_each(|_| drop(s.spawn(|| (0..20).for_each(|_| file::save(&path, &saved).unwrap())))));
    assert_eq!(file::load(&path).unwrap(), saved);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_streak_of_skips_survives_a6_4() {
    let config = Config { guard_limit: 25, ..config() };
    let nan: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    let skip = |o: &mut Optimizer<Reference>, p: &mut [Vec<f32>]| {
        let _ = o.step(Step::new(0.01), |b| Some(View::F32(&nan[b as usize])), &mut views(p)).unwrap();
        o.wait().unwrap();
        o.report().unwrap().check::<Never>().err()
    };
    let (mut o, mut p) = (optimizer(config.clone()), parameters());
    assert!((0..24).all(|_| skip(&mut o, &mut p).is_none()));
    let mut again = optimizer(config);
    again.restore(&o.save().unwrap()).unwrap();
    assert_eq!(skip(&mut again, &mut p), Some(Error::GuardStreak { streak: 25, limit: 25 }));
    assert_eq!(again.report().unwrap().skipped_total, 25);
}

#[test]
fn a_set_that_would_not_fit_is_refused() {
    let grow = |word: usize| {
        refuses(move |l| {
            let blocks = l.iter_mut().filter(|l| l.name.starts_with("block/"));
            // Every block whole in the pending set.
            blocks.for_each(|l| l.data.copy_within(8..16, 8 * word));
            named(l, "host").data[40..48].copy_from_slice(&1u64.to_le_bytes());
        })
    };
    assert!(grow(5).1.contains("its active sets need 254 coordinates, the budget is 102"), "{:?}", grow(5));
}

#[test]
fn a_block_thawed_under_full_before_the_first_step_survives_a_restore() {
    let specs = [BlockSpec::new("a", [1, 4]), BlockSpec::new("b", [1, 4]).frozen()];
    let new = || Optimizer::new(Reference::<Slices>::default(), &specs, Config::adamw()).unwrap();
    let (mut o, mut again) = (new(), new());
    o.thaw(1).unwrap();
    again.restore(&o.save().unwrap()).unwrap();
    let end = |o: &mut Optimizer<Reference>| {
        let (mut p, g) = ([vec![1.0f32; 4], vec![2.0; 4]], [0.5f32, -1.0, 0.25, 3.0]);
        let _ = o.step(Step::new(0.1), |_| Some(View::F32(&g)), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        bits(&p)
    };
    assert_eq!(end(&mut o), end(&mut again));
}

#[test]
fn a_group_and_a_block_of_one_name_are_two_units() {
    let specs = [BlockSpec::new("x", [1, 4]).group("a"), BlockSpec::new("a", [1, 4]), BlockSpec::new("c", [1, 4])];
    let new =
        || Optimizer::new(Reference::<Slices>::default(), &specs, Config { seed: 1, sparsity: 0.5, ..near_the_paper() }).unwrap();
    let (mut o, mut again) = (new(), new());
    assert_eq!(o.cursor_and_draws().0, 1);
    again.restore(&o.save().unwrap()).unwrap();
    assert_eq!(again.cursor_and_draws(), o.cursor_and_draws());
}

#[test]
fn scales_and_always_active_must_be_as_they_were() {
    let record = trained().0.save().unwrap();
    let error = |change: &dyn Fn(&mut BlockSpec)| {
        let mut specs = specs();
        change(&mut specs[1]);
        Optimizer::new(Reference::<Slices>::default(), &specs, config()).unwrap().restore(&record).unwrap_err().to_string()
    };
    assert!(error(&|s| s.scales.lr = 0.5).contains("block/w1: lr scale"));
    assert!(error(&|s| s.scales.weight_decay = 0.5).contains("block/w1: weight decay scale"));
    assert!(error(&|s| s.always_active = true).contains("block/w1: always active was 0, here it is 1"));
}

#[test]
fn the_report_of_the_last_step_survives_a_restore() {
    for steps in 1..14 {
        let (mut o, mut p) = (optimizer(config()), parameters());
        (0..steps).for_each(|t| drive(&mut o, &mut p, t));
        let mut again = optimizer(config());
        again.restore(&o.save().unwrap()).unwrap();
        assert_eq!(again.report().unwrap(), o.report().unwrap(), "after {steps} steps");
    }
}

#[test]
fn counters_stay_at_their_largest_value() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    let mut leaves = o.save().unwrap().into_leaves();
    named(&mut leaves, "flags").data.fill(0xff);
    named(&mut leaves, "flags").data[..4].fill(0);
    o.restore(&Record::from_leaves(leaves)).unwrap();
    let nan: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    let _ = o.step(Step::new(0.01), |b| Some(View::F32(&nan[b as usize])), &mut views(&mut p)).unwrap();
    o.wait().unwrap();
    let report = o.report().unwrap();
    assert_eq!((report.nan_gradients, report.streak, report.skipped_total), (u32::MAX, u32::MAX, u32::MAX));
}

#[test]
fn a_leftover_of_a_killed_process_of_the_same_id_is_neither_used_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let record = trained().0.save().unwrap();
    let left: Vec<_> = (0..200).map(|n| folder.path().join(format!(".run.{}-{n}.tmp", std::process::id()))).collect();
    left.iter().for_each(|l| std::fs::write(l, b"half a record").unwrap());
    file::save(&path, &record).unwrap();
    assert_eq!(file::load(&path).unwrap(), record);
    assert!(left.iter().all(|l| std::fs::read(l).unwrap() == b"half a record"));
}
