//! `sagactl`: what clients and operators type.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagad::cli::run(std::env::args_os()).into()
}
