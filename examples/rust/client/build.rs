//! Makes the messages and services from the .proto files; `protoc` is not needed.

use std::error::Error;

/// Yours: a copy of the daemon's `proto/`, or a submodule that has it.
const PROTO: &str = "../../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile(["sagad/v1/saga.proto"], [PROTO])?;
    tonic_prost_build::compile_fds(files)?;
    Ok(())
}
