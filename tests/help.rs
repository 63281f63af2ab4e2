//! The help of every command, as it was last looked at: `tests/help/COMMAND.txt`.
//!
//! After a change that is meant, `UPDATE_HELP=1 cargo test --test help` writes them anew.

use std::path::Path;
use std::process::Command;

const COMMANDS: &[&str] = &[
    "",
    "replay",
    "serve",
    "send",
    "train",
    "eval",
    "info",
    "convert",
    "synth",
    "import",
    "import norse",
    "completions",
];

fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dvs-stream"));
    // in a pipe nothing tells the width; this does
    program.env("COLUMNS", "100").args(command.split_whitespace()).arg("--help");
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{command} --help");
    assert!(output.stderr.is_empty(), "{command} --help");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_help_is_what_was_looked_at() {
    let update = std::env::var_os("UPDATE_HELP").is_some();
    let mut differing = Vec::new();
    for command in COMMANDS {
        let name = if command.is_empty() { "dvs-stream" } else { *command };
        let path = Path::new("tests/help").join(name.replace(' ', "-")).with_extension("txt");
        let help = help(command);
        if update {
            std::fs::write(&path, &help).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != help {
            differing.push(name);
        }
    }
    assert!(differing.is_empty(), "the help of {differing:?} differs from tests/help");
}

/// In a folder that holds the fixtures, as a checkout does. `send` and `serve` need a peer, what
/// `train` and `import` begin with is the user's own, and `synth` makes too much for a test.
#[test]
fn the_first_example_works() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("fixtures")).unwrap();
    for file in ["fixtures/deck.aedat4", "fixtures/deck.csv"] {
        std::fs::copy(file, folder.path().join(file)).unwrap();
    }
    for command in ["", "replay", "eval", "info", "convert", "completions"] {
        let help = help(command);
        let example = help.lines().nth(1).and_then(|line| line.trim().strip_prefix("dvs-stream "));
        // What follows a gap is said of the example, what follows `>` is the shell's.
        let words = example.unwrap().split("  ").next().unwrap().split_whitespace();
        let words: Vec<_> = words.take_while(|word| *word != ">").collect();
        assert!(words[0] == command || command.is_empty(), "{command}: {words:?}");
        let mut program = Command::new(env!("CARGO_BIN_EXE_dvs-stream"));
        let output = program.current_dir(&folder).args(&words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {told}");
    }
    let send = help("send");
    let names = |line: &str| line.contains("--print fixtures/deck.aedat4 tcp://");
    assert!(send.lines().nth(1).is_some_and(names), "{send}");
}

/// A command that is missing above would have no help that was looked at.
#[test]
fn every_command_is_looked_at() {
    let all = help("");
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        let indented = line.starts_with("  ") && !line.starts_with("   ");
        line.split_whitespace().next().filter(|_| indented)
    });
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(COMMANDS.contains(&name), "{name} is not in COMMANDS");
        assert!(help(name).starts_with("Example"), "{name} --help opens with no example");
    }
}
