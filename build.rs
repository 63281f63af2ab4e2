//! Compiles the GPU's kernels for the CPU where the feature `kernel-host` asks for it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "kernel-host")]
    kernels();
}

/// Multiply and add stay apart, as nvcc is told too.
#[cfg(feature = "kernel-host")]
fn kernels() {
    println!("cargo:rerun-if-changed=src/nn");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .opt_level(2)
        .file("src/nn/op/host.cpp")
        .compile("kernels");
}
