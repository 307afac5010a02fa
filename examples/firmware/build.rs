//! Puts `memory.x` where the linker script of cortex-m-rt looks for it.

fn main() {
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::copy("memory.x", std::path::Path::new(&out).join("memory.x")).expect("memory.x is copied");
    println!("cargo:rustc-link-search={out}");
    println!("cargo:rerun-if-changed=memory.x");
}
