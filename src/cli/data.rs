//! Flags of labelled recordings, shared by `train` and `eval`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::args::{DecoderArgs, parse_window};
use crate::dataset::Loading;
use crate::dataset::split::Split;
use crate::view::ViewSpec;
use crate::window::Partial;

/// How labelled recordings are read.
#[derive(Args)]
pub struct DataArgs {
    /// Length of a window
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = parse_window)]
    window: u64,
    /// The last, unfinished window: keep it, or drop it as Tonic does
    #[arg(long, default_value = "keep")]
    partial: PartialArg,
    /// A damaged recording is an error, else it is named and left out
    #[arg(long)]
    strict: bool,
}

/// A value of `--partial`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum PartialArg {
    Keep,
    Drop,
}

impl From<PartialArg> for Partial {
    fn from(partial: PartialArg) -> Partial {
        match partial {
            PartialArg::Keep => Partial::Keep,
            PartialArg::Drop => Partial::Drop,
        }
    }
}

impl DataArgs {
    pub fn loading(&self, decoder: &DecoderArgs, view: ViewSpec, threads: usize) -> Loading {
        Loading {
            sensor: None,
            window_us: self.window,
            gap_us: None,
            partial: self.partial.into(),
            view,
            decoder: decoder.options(),
            format: decoder.format(),
            labels: None,
            strict: self.strict,
            keep_events: false,
            threads,
        }
    }
}

/// Which recordings are trained on, and which are kept out.
#[derive(Args)]
#[command(next_help_heading = "Split (default: nothing is kept out)")]
pub struct SplitArgs {
    /// Train on the first N recordings of each class
    #[arg(long, value_name = "first:N", conflicts_with = "folds")]
    split: Option<String>,
    /// Cross-validate: N folds, or those of a table's column
    #[arg(long, value_name = "N|FILE.csv:COLUMN")]
    folds: Option<String>,
    /// Only this fold of --folds
    #[arg(long, value_name = "NAME", requires = "folds")]
    pub fold: Option<String>,
    /// Keep recordings of a class that overlap in absolute time on one side of --split, or in one
    /// fold of --folds N; a table's folds are taken as they are
    #[arg(long, value_name = "time")]
    group_by: Option<GroupArg>,
}

#[derive(Clone, Copy, ValueEnum)]
enum GroupArg {
    Time,
}

impl SplitArgs {
    /// The first of these flags that is given.
    pub fn given(&self) -> Option<&'static str> {
        let SplitArgs { split, folds, fold, group_by } = self;
        let flags = [
            ("--split", split.is_some()),
            ("--folds", folds.is_some()),
            ("--fold", fold.is_some()),
            ("--group-by", group_by.is_some()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    pub fn by_time(&self) -> bool {
        self.group_by.is_some()
    }

    pub fn split(&self) -> anyhow::Result<Split> {
        let split = self.named()?;
        match (&split, self.by_time()) {
            (Split::All, true) => bail!(
                "--group-by time keeps recordings together that --split or --folds N would part: \
                 name one of them"
            ),
            (Split::Table(..), true) => bail!(
                "--group-by time goes with --split and --folds N: the folds of a table are taken \
                 as they are"
            ),
            _ => Ok(split),
        }
    }

    fn named(&self) -> anyhow::Result<Split> {
        if let Some(text) = &self.split {
            let n = text.strip_prefix("first:").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            return match n {
                Some(n) => Ok(Split::First(n)),
                None => bail!("--split {text}: expected first:N, as first:12"),
            };
        }
        let Some(text) = &self.folds else { return Ok(Split::All) };
        if let Ok(n) = text.parse() {
            return Ok(Split::Folds(n));
        }
        match text.rsplit_once(':') {
            Some((path, column)) if !path.is_empty() => {
                Ok(Split::Table(PathBuf::from(path), column.to_owned()))
            }
            _ => bail!("--folds {text}: expected a number, or FILE.csv:COLUMN"),
        }
    }
}

/// Where the truth of a deck is, if nothing else is said: beside it, under its name.
pub fn truth_beside(deck: &Path) -> PathBuf {
    let is_csv = deck.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    deck.with_extension(if is_csv { "truth.csv" } else { "csv" })
}
