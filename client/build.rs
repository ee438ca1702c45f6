//! Does nothing. It is here because a package needs a build script to have build-dependencies, and one of them
//! carries the `protoc` that `.cargo/protoc` runs for libsignal.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
