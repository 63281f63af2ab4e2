//! The program, run.

// Each test uses its part.
#![allow(dead_code)]

use std::process::{Command, Output, Stdio};

pub const DECK: &str = "fixtures/deck.aedat4";

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dvs-stream");

/// With nothing on standard input.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs, expects an exit code, gives standard output and standard error.
pub fn check(arguments: &[&str], code: i32) -> (String, String) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}
