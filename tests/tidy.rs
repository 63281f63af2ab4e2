//! The shape of the repository: who imports whom, which package has which door, what a file may be.
//!
//! Reads text, compiles nothing. Every check takes a path and a text and returns complaints; a
//! fault planted for each shows that it is caught.

mod skip;

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use skip::skip;

/// Modules by layer. A module may import from its own layer and from those below it, but for
/// [`GROUPS`].
const LAYERS: &[&[&str]] = &[
    &["error", "event", "frame", "prediction", "quantity"],
    &["codec", "view", "window", "nn", "decide", "model", "session", "synth", "augment"],
    &[
        "ring",
        "engine",
        "telemetry",
        "ingest",
        "sink",
        "source",
        "progress",
        "pace",
        "recording",
        "dataset",
        "store",
        "table",
        "score",
        "plot",
        "pictures",
    ],
    &["replay", "serve", "send", "info", "convert", "import", "train", "eval"],
    &["cli", "main"],
];

/// Layers whose modules are strangers to each other, but for [`ACQUAINTANCES`].
const GROUPS: &[usize] = &[1, 3];

/// What a module of [`GROUPS`] may import from its own layer.
const ACQUAINTANCES: &[(&str, &[&str])] =
    &[("model", &["nn", "view", "decide"]), ("session", &["model", "nn", "decide", "window"])];

/// The modules that may name a package.
const DOORS: &[(&str, &[&str])] = &[
    ("aedat", &["codec"]),
    ("anyhow", &["cli"]),
    ("candle_core", &["nn"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("crossbeam_channel", &["engine"]),
    ("ctrlc", &["cli"]),
    ("flatbuffers", &["codec"]),
    ("hyper", &["serve"]),
    ("hyper_util", &["serve"]),
    ("indicatif", &["progress"]),
    ("libm", &["synth", "train", "nn"]),
    ("lzzzz", &["codec"]),
    ("metrics", &["telemetry"]),
    ("nix", &["serve", "store"]),
    ("npyz", &["replay"]),
    ("plotters", &["plot"]),
    ("pulp", &["nn"]),
    ("quick_xml", &["codec"]),
    ("rand", &["synth", "augment", "dataset", "nn", "train"]),
    ("rand_chacha", &["synth", "augment", "dataset", "train"]),
    ("rand_distr", &["synth", "augment", "nn"]),
    ("rayon", &["nn"]),
    ("ringbuf", &["ring"]),
    ("safetensors", &["model", "nn", "replay", "serve", "train"]),
    (
        "serde",
        &[
            "augment",
            "cli",
            "codec",
            "decide",
            "eval",
            "event",
            "frame",
            "info",
            "ingest",
            "model",
            "nn",
            "plot",
            "prediction",
            "score",
            "send",
            "serve",
            "session",
            "sink",
            "train",
            "view",
            "window",
        ],
    ),
    ("serde_json", &["cli", "model", "send", "serve", "sink", "train"]),
    ("sha2", &["serve"]),
    ("subtle", &["serve"]),
    ("thiserror", &["error"]),
    ("tokio", &["serve"]),
    ("tracing", &["serve", "cli"]),
    ("tracing_subscriber", &["cli"]),
    ("xxhash_rust", &["codec", "train"]),
    ("zip", &["nn", "replay"]),
    ("zstd", &["codec"]),
];

/// Longest file, in lines.
const MAX_LINES: usize = 600;

/// What prints past the sinks, and panics where that fails.
const PRINTS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!"];

/// What stands at the top of the repository.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "PROTOCOL.md",
    "README.md",
    "benches",
    "build.rs",
    "clippy.toml",
    "deploy",
    "docs",
    "fixtures",
    "fuzz",
    "models",
    "rustfmt.toml",
    "src",
    "tests",
];

/// Tables of Cargo.toml whose lines are dependencies.
const DEPENDENCIES: &[&str] = &["[dependencies]", "[dev-dependencies]", "[build-dependencies]"];

/// The one file with unsafe code.
const UNSAFE: &str = "src/nn/op/launch.rs";

/// Where CUDA may be named.
const CUDA: &[&str] = &["src/nn/op/", "src/nn/device.rs"];

/// Takes a path (from the repository's root, `/` between its parts) and a text.
type Check = fn(&str, &str) -> Vec<String>;

/// What every file of `src/` is held to.
const SOURCE_CHECKS: &[Check] = &[imports, doors, opening, length, printing, safety, cuda];

#[test]
fn source_keeps_its_shape() {
    let files = sources();
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "src/ was not read");
    let complain = |(path, text): &(String, String)| -> Vec<String> {
        SOURCE_CHECKS.iter().flat_map(|check| check(path, text)).collect()
    };
    none(&files.iter().flat_map(complain).collect::<Vec<_>>());
}

#[test]
fn dependencies_are_plain_lines() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(text.contains("\n[dependencies]\n"), "Cargo.toml has no [dependencies]");
    none(&dependencies("Cargo.toml", &text));
}

/// One that is new is given a door.
#[test]
fn every_package_has_a_door() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let lines = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let packages = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let packages: Vec<_> = packages.filter(|name| !name.starts_with('#')).collect();
    assert!(packages.contains(&"aedat"), "{packages:?}");
    for package in packages.iter().map(|name| name.replace('-', "_")) {
        assert!(DOORS.iter().any(|(door, _)| *door == package), "{package} has no door");
    }
}

#[test]
fn nothing_strange_at_the_top() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    match listed {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let text = String::from_utf8_lossy(&output.stdout).replace('\0', "\n");
            none(&top_level(".", &text));
        }
        _ => skip("no git, or not a git repository"),
    }
}

#[test]
fn planted_faults_are_caught() {
    let long = "//! A file.\n".repeat(MAX_LINES + 1);
    let faults: &[(Check, &str, &str, &str)] = &[
        // upward
        (imports, "src/event.rs", "use crate::codec::Format;", "codec"),
        (imports, "src/nn/op/mod.rs", "fn f() { crate::engine::run() }", "engine"),
        (imports, "src/sink/mod.rs", "use crate::{error::Error, replay::{a, b}};", "replay"),
        (imports, "src/replay/mod.rs", "use crate::cli;", "cli"),
        (imports, "src/event.rs", "use super::window::Windower;", "window"),
        (imports, "src/nn/op/gather.rs", "use super::super::super::session::Session;", "session"),
        (imports, "src/event.rs", "use super::{error::Error, view::View};", "view"),
        // strangers
        (imports, "src/codec/any.rs", "pub use crate::view::View;", "view"),
        (imports, "src/nn/mod.rs", "use crate::window::Window;", "window"),
        (imports, "src/window.rs", "use crate::nn::Network;", "nn"),
        (imports, "src/model.rs", "use crate::codec::Format;", "codec"),
        (imports, "src/info.rs", "use crate::convert::Report;", "convert"),
        // no layer
        (imports, "src/event.rs", "use crate::helpers::x;", "helpers"),
        (imports, "src/helpers.rs", "", "helpers"),
        // doors
        (doors, "src/model.rs", "use candle_core::Tensor;", "candle_core"),
        (doors, "src/model.rs", "type A = ::zip::ZipArchive<B>;", "zip"),
        (doors, "src/engine.rs", "pub use metrics;", "metrics"),
        (doors, "src/info.rs", "use {std::fmt, anyhow::Context};", "anyhow"),
        (doors, "src/replay/mod.rs", "#[derive(clap::Parser)]", "clap"),
        (doors, "src/sink/csv.rs", "use clap as arguments;", "clap"),
        // files
        (opening, "src/view.rs", "// A view.\n//! Late.\n", "//!"),
        (opening, "src/view.rs", "", "//!"),
        (length, "src/view.rs", &long, "601"),
        (printing, "src/engine.rs", "fn f() { println!(\"here\") }", "println!"),
        (printing, "src/sink/text.rs", "fn f() { std::eprint!(\"here\") }", "eprint!"),
        (printing, "src/client.rs", "fn f() { print!(\"//\") }", "print!"),
        (printing, "src/cli/info.rs", "fn f() { eprintln!() }", "eprintln!"),
        (safety, "src/nn/op/cuda.rs", "fn f() { unsafe { g() } }", "unsafe"),
        (cuda, "src/session.rs", "use candle_core::CudaStorage;", "CudaStorage"),
        (cuda, "src/nn/state.rs", "use candle_core::cuda_backend::X;", "cuda_backend"),
        // the repository
        (top_level, ".", "src/lib.rs\nnotes.txt\n", "notes.txt"),
        (top_level, ".", "tools/run.sh\n", "tools"),
        (dependencies, "Cargo.toml", "[dependencies]\nserde.workspace = true\n", "serde"),
        (dependencies, "Cargo.toml", "[dependencies.serde]\nversion = \"1\"\n", "serde"),
        (dependencies, "Cargo.toml", "[target.'cfg(unix)'.dependencies]\n", "cfg(unix)"),
        (dependencies, "Cargo.toml", "[dev-dependencies]\nx = { version = \"1\",\n", "x"),
        (dependencies, "Cargo.toml", "[dependencies]\nx = [\n", "x"),
    ];
    for (check, path, text, named) in faults {
        let complaints = check(path, text);
        let caught = complaints.iter().any(|c| c.contains(path) && c.contains(named));
        assert!(caught, "not caught in {path}: {text}\ncomplaints: {complaints:?}");
    }
}

#[test]
fn what_is_right_passes() {
    let right: &[(Check, &str, &str)] = &[
        (imports, "src/codec/any.rs", "use crate::codec::Format;\nuse crate::{Error, Result};"),
        (
            imports,
            "src/nn/op/gather.rs",
            "use super::super::state::State;\npub(crate) use gather::f;",
        ),
        (imports, "src/session.rs", "use crate::{decide::D, model::{M, N}, nn, window::W};"),
        (
            imports,
            "src/event.rs",
            "/// See [`crate::codec`].\n//! crate::cli\nfn f() {} // crate::nn",
        ),
        (imports, "src/event.rs", "#[cfg(test)]\nmod tests {\n    use crate::codec::x;\n}\n"),
        (imports, "src/event.rs", "/* crate::codec /* crate::nn */ crate::cli */ const A: u8 = 1;"),
        (imports, "src/event.rs", "const A: char = '\"'; const B: &str = \"crate::cli::x\";"),
        (imports, "src/lib.rs", "pub use crate::cli::main;"),
        (doors, "src/nn/op/mod.rs", "use candle_core::Tensor; // clap::x"),
        (doors, "src/view.rs", "use self::metrics::x; a.zip(b); my_zip::x(); zip::<u8>"),
        (opening, "src/view.rs", "//! Views.\n"),
        (length, "src/view.rs", "//! Views.\n"),
        (printing, "src/cli/info.rs", "fn f() { print(b\"here\", 0); tell(\"eprintln!\") }"),
        (printing, "src/engine.rs", "fn f() { writeln!(out)?; let a = \"println!\"; }"),
        (safety, "src/nn/op/launch.rs", "unsafe { f() }"),
        (safety, "src/lib.rs", "#![deny(unsafe_code)] // unsafe { }"),
        (cuda, "src/nn/op/cuda.rs", "use candle_core::cuda_backend::X;"),
        (top_level, ".", "src/lib.rs\nCargo.toml\n.ci/run\n"),
        (
            dependencies,
            "Cargo.toml",
            "[dependencies]\n# why\na = \"1\"\nb-c = { version = \"1\" }\n",
        ),
        (
            dependencies,
            "Cargo.toml",
            "[package]\nrust-version.workspace = true\n[features]\nx = [\n",
        ),
    ];
    for (check, path, text) in right {
        let complaints = check(path, text);
        assert!(complaints.is_empty(), "{path}: {text}\ncomplaints: {complaints:?}");
    }
}

/// Nobody imports upward, and strangers stay strangers.
fn imports(path: &str, text: &str) -> Vec<String> {
    let own = module(path);
    if own == "lib" {
        return Vec::new();
    }
    let Some(layer) = layer_of(own) else {
        return vec![format!("{path}: module {own} has no layer: give it a place in LAYERS")];
    };
    let mut complaints = Vec::new();
    for named in crate_modules(path, &code(text)) {
        if named == own || named.starts_with(char::is_uppercase) {
            continue;
        }
        let Some(theirs) = layer_of(&named) else {
            complaints.push(format!("{path}: imports {named}, which has no place in LAYERS"));
            continue;
        };
        if theirs > layer {
            complaints.push(format!(
                "{path}: {own} (layer {layer}) imports {named} (layer {theirs}): data flows one way"
            ));
        } else if theirs == layer && GROUPS.contains(&layer) && !acquainted(own, &named) {
            complaints.push(format!("{path}: {own} imports {named}, and they are strangers"));
        }
    }
    complaints
}

/// One package, one door.
fn doors(path: &str, text: &str) -> Vec<String> {
    let (own, code) = (module(path), code(text));
    let closed = DOORS.iter().filter(|(_, modules)| !modules.contains(&own));
    closed
        .filter(|(package, _)| names_package(&code, package))
        .map(|(package, modules)| {
            format!("{path}: names {package}, which only {} may", modules.join(" and "))
        })
        .collect()
}

/// Every file says first what it is.
fn opening(path: &str, text: &str) -> Vec<String> {
    let missing = !text.starts_with("//! ");
    missing.then(|| format!("{path}: does not open with `//!`")).into_iter().collect()
}

/// No file is longer than [`MAX_LINES`].
fn length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = lines > MAX_LINES;
    long.then(|| format!("{path}: {lines} lines, at most {MAX_LINES}")).into_iter().collect()
}

/// Nothing panics where its output takes nothing.
fn printing(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let found = PRINTS.iter().filter(|print| words(&code, print).next().is_some());
    found
        .map(|print| format!("{path}: {print} panics where it cannot write: cli::tell does not"))
        .collect()
}

/// Unsafe code stands in one file.
fn safety(path: &str, text: &str) -> Vec<String> {
    let found = path != UNSAFE && words(&code(text), "unsafe ").next().is_some();
    found.then(|| format!("{path}: unsafe code outside of {UNSAFE}")).into_iter().collect()
}

/// CUDA's interface is named by the operations and the module of devices.
fn cuda(path: &str, text: &str) -> Vec<String> {
    let own = CUDA.iter().any(|own| path.starts_with(own));
    let named = ["cuda_backend", "cudarc", "CudaStorage", "CudaDevice"];
    let code = code(text);
    let found = named.iter().filter(|name| !own && words(&code, name).next().is_some());
    found.map(|name| format!("{path}: names {name}, which only {} may", CUDA.join(", "))).collect()
}

/// What git tracks at the top belongs there; `text` lists paths, one a line.
fn top_level(path: &str, text: &str) -> Vec<String> {
    let mut entries: Vec<_> = text.lines().filter_map(|line| line.split('/').next()).collect();
    entries.sort_unstable();
    entries.dedup();
    let strange = entries.into_iter().filter(|entry| !TOP.contains(entry));
    strange.map(|entry| format!("{path}: {entry} has no place at the top (TOP)")).collect()
}

/// Dependencies are lines `name = "version"` or `name = { … }`.
fn dependencies(path: &str, text: &str) -> Vec<String> {
    let (mut within, mut complaints) = (false, Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') && line.ends_with(']') {
            within = DEPENDENCIES.contains(&line);
            if line.contains("dependencies") && !within {
                complaints.push(format!("{path}: {line} is a table of its own"));
            }
        } else if within && !is_plain(line) {
            complaints.push(format!("{path}: `{line}` is not a plain line `name = …`"));
        }
    }
    complaints
}

fn is_plain(line: &str) -> bool {
    if line.is_empty() || line.starts_with('#') {
        return true;
    }
    let Some((name, value)) = line.split_once(" = ") else { return false };
    let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let enclosed = |open, close| value.starts_with(open) && value.ends_with(close);
    named && value.len() > 1 && (enclosed('"', '"') || enclosed('{', '}'))
}

/// The module at the top that the file belongs to.
fn module(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn acquainted(own: &str, named: &str) -> bool {
    ACQUAINTANCES.iter().any(|(who, whom)| *who == own && whom.contains(&named))
}

/// The first names of all paths that begin at the crate's root, also by way of `super`.
fn crate_modules(path: &str, code: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let depth = inside.trim_end_matches("/mod.rs").split('/').count();
    let roots = ["crate::".to_owned(), "dvs_stream::".to_owned(), "super::".repeat(depth)];
    let rests = roots.iter().flat_map(|root| words(code, root).map(|at| &code[at + root.len()..]));
    rests.flat_map(first_names).collect()
}

/// The name that a path goes on with, or all of them where it goes on with `{…}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |part: &str| part.chars().take_while(|&c| is_word(c)).collect::<String>();
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![name(rest.trim_start())];
    };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty() && name != "self");
    names
}

/// Whether a path begins with the package, or `use` takes it whole.
fn names_package(code: &str, package: &str) -> bool {
    words(code, package).any(|at| {
        let (before, after) = (&code[..at], &code[at + package.len()..]);
        let inner = before.strip_suffix("::").is_some_and(|b| b.ends_with(is_word));
        let used = before.ends_with("use ") || before.ends_with("extern crate ");
        let path = after.starts_with("::") && !after.starts_with("::<");
        !inner && (path || (used && !after.starts_with(is_word)))
    })
}

/// Where `word` begins in the code and is not the end of a longer word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> {
    let begins = move |at: &usize| !code[..*at].ends_with(is_word);
    code.match_indices(word).map(|(at, _)| at).filter(begins)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text without comments, contents of strings, and modules of tests.
fn code(text: &str) -> String {
    without_tests(&without_words(text))
}

/// Drops modules under `#[cfg(test)]` that begin and end at the margin.
fn without_tests(code: &str) -> String {
    let (mut kept, mut lines) = (String::new(), code.lines().peekable());
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod ")) {
            lines.by_ref().find(|line| *line == "}");
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Drops comments and what strings hold.
fn without_words(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_length(rest)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string_length(rest)
        } else if let Some(quote) = ["'\"'", "'\\\"'"].iter().find(|q| rest.starts_with(**q)) {
            quote.len()
        } else {
            kept.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    kept
}

/// Length of the block comment, with those inside of it, that `rest` begins with.
fn block_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let mark = rest.as_bytes().get(at..at + 2);
        let step = match mark {
            Some(b"/*") => (depth + 1, 2),
            Some(b"*/") => (depth - 1, 2),
            _ => (depth, 1),
        };
        depth = step.0;
        at += step.1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string, quotes and all, that `rest` begins with.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    rest.len()
}

/// Every file of `src/`, by its path from the root.
fn sources() -> Vec<(String, String)> {
    let (mut files, mut folders) = (Vec::new(), vec!["src".to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("src").map(io::Result::unwrap) {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push((path, fs::read_to_string(entry.path()).expect("a source file")));
            }
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
