//! The same bits at any number of threads: of this crate's loops (rayon's current pool) and of candle's matrix products,
//! which are split by `RAYON_NUM_THREADS` of the process and then run in the same pool.
#![allow(missing_docs)]

mod common;

use candle_core::Result;
use common::{Llama, Sizes, batch, bits};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

/// Large enough that matrix products, sums over rows and attention all run on several threads.
const SIZES: Sizes = Sizes { vocabulary: 96, width: 96, heads: 3, hidden: 256, layers: 2, context: 64 };

/// A hash of the loss and of all gradients to the bit.
fn fingerprint() -> Result<u64> {
    let model = Llama::new(SIZES, 0)?;
    let (ids, targets) = batch(SIZES, 8, 1);
    let loss = model.loss(&ids, &targets)?;
    let store = loss.backward()?;
    let mut hasher = DefaultHasher::new();
    bits(&loss).hash(&mut hasher);
    for p in model.store.iter() {
        bits(store.get(p.var()).unwrap()).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

#[test]
fn bits_do_not_depend_on_the_pool() -> Result<()> {
    let in_pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(fingerprint)
    };
    let one = in_pool(1)?;
    for threads in [2, 3, 7] {
        assert_eq!(in_pool(threads)?, one, "{threads} threads");
    }
    Ok(())
}

/// Set in a child process, which prints its fingerprint and compares nothing.
const CHILD: &str = "BLOCKLLM_PRINT_FINGERPRINT";

#[test]
fn bits_do_not_depend_on_the_threads_of_the_process() -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        println!(" fingerprint={:016x} ", fingerprint()?);
        return Ok(());
    }
    let child = |threads: &str| {
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", "bits_do_not_depend_on_the_threads_of_the_process", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads)
            .env(CHILD, "1")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.split_whitespace().find_map(|word| word.strip_prefix("fingerprint=").map(String::from));
        assert!(output.status.success() && found.is_some(), "child failed: {text}");
        Result::Ok(found)
    };
    let one = child("1")?;
    for threads in ["2", "5"] {
        assert_eq!(child(threads)?, one, "{threads} threads");
    }
    Ok(())
}
