//! Compiles `proto/` without `protoc`: protox reads the files, tonic and prost write
//! the Rust. The descriptor set is kept beside them for server reflection.

#![allow(clippy::disallowed_methods, reason = "a build script is not the daemon: it may touch files")]

use std::error::Error;
use std::path::PathBuf;

const PROTO_ROOT: &str = "proto";

const PROTO_FILES: [&str; 5] = [
    "sagad/v1/definition.proto",
    "sagad/v1/operations.proto",
    "sagad/v1/participant.proto",
    "sagad/v1/registry.proto",
    "sagad/v1/saga.proto",
];

/// Read again by `src/proto.rs` under this name.
const DESCRIPTOR_SET_FILE: &str = "sagad_v1.bin";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PROTO_ROOT}");

    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTO_FILES)?;

    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join(DESCRIPTOR_SET_FILE), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        // Labels in a fixed order: the same message is always the same bytes.
        .btree_map(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
