//! `dvs-stream serve`.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::args::{self, AnswerArgs, DecoderArgs, ModelArgs, ViewArgs};
use super::log::{Log, LogFormat};
use super::{Common, OutputArg, model_bytes, open_model, settled};
use crate::codec::{DatagramFormat, datagrams_by_name};
use crate::ingest::Reading;
use crate::nn::DeviceChoice;
use crate::serve::{
    About, DvServer, Flow, Keeping, Limits, MAX_TURNED_AWAY, Notice, Notices, Overflow, Records,
    Serve, StreamConfig, UdpSource, run,
};
use crate::session::windows_of;

const EXAMPLES: &str = "Examples:
  dvs-stream serve --port 7000
  nc -N 127.0.0.1 7000 < fixtures/deck.aedat4          its predictions, a line each
  dvs-stream serve --unix /run/dvs-stream.sock --max-streams 8
  dvs-stream serve --port 7000 --state-dir states       named streams go on after a restart
  dvs-stream serve --udp 3333=faery-t64 --output jsonl  each sender's records on standard output
  dvs-stream serve --connect dv://127.0.0.1 --output jsonl --scale    a camera of DV's";

/// Classify live streams: clients send events, running predictions come back
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct ServeArgs {
    /// TCP port; 0 picks a free one
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Address of every socket but --unix: TCP, UDP and HTTP
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// UNIX socket
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Port that datagrams come to, and their format: faery-t64, faery-t32, spif or jaer; 0 picks a
    /// free one; may be repeated. A sender is a stream; its records go to --output and --http
    #[arg(long, value_name = "PORT=FORMAT", value_parser = parse_udp)]
    udp: Vec<UdpArg>,
    /// DV server to dial, dv://HOST:PORT or dv+unix://PATH, and to dial again when it is absent or
    /// ends; may be repeated. A connection is a stream; its records go to --output and --http
    #[arg(long, value_name = "URL")]
    connect: Vec<DvServer>,
    /// Port of /metrics, /livez, /readyz, /v1/streams, /v1/model, /v1/predictions; 0 picks one
    #[arg(long, value_name = "N")]
    http: Option<u16>,
    /// Only clients with a token of this file are let in, one a line; datagrams have none
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Form of the logs on standard error; -v tells of streams, -vv of more
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    states: StateArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
    #[command(flatten)]
    view: ViewArgs,
    /// Records of all streams on standard output too: jsonl [default: none]
    #[arg(
        long,
        value_name = "FORM",
        help_heading = "Common",
        hide_possible_values = true,
        display_order = 0
    )]
    output: Option<OutputArg>,
}

#[derive(Args)]
#[command(next_help_heading = "States of named streams")]
struct StateArgs {
    /// Folder for the states of named streams: one that comes back goes on where it was
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How often the states of open streams are written, besides when they end; 0s: never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = args::parse_time)]
    snapshot_every: u64,
    /// A stream that comes back later starts afresh
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = args::parse_time)]
    resume_within: u64,
}

impl StateArgs {
    /// Where states are kept, and a folder for them.
    fn keeping(&self) -> anyhow::Result<Option<Keeping>> {
        let within = Duration::from_micros(self.resume_within);
        let keeping = self.state_dir.clone().map(|folder| Keeping { folder, within });
        keeping.as_ref().map_or(Ok(()), Keeping::prepare).context("--state-dir")?;
        Ok(keeping)
    }
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Streams at once, at most 16384; each takes an open file, and memory once it comes
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = args::streams())]
    max_streams: u16,
    /// What becomes of windows that come faster than they are stepped: wait (and so does the sender),
    /// drop-newest or skip-to-newest; for TCP and UNIX clients, or with tcp=, unix=, udp= or dv=
    /// before it for that kind; may be repeated [default: wait, udp=drop-newest, dv=skip-to-newest]
    #[arg(long, value_name = "[KIND=]RULE", value_parser = parse_overflow)]
    overflow: Vec<OverflowArg>,
    /// A silent stream's windows are completed by wall time, so far behind it; 0s: never
    /// [default: 100ms for datagrams and DV servers, never for others]
    #[arg(long, value_name = "TIME", value_parser = args::parse_time)]
    idle: Option<u64>,
    /// Step what has come of all streams together, once in so long, and before where a stream has
    /// more than 256 windows; 0s: as it comes
    /// [default: 0s, on a GPU the model's window]
    #[arg(long, value_name = "TIME", value_parser = args::parse_time)]
    tick: Option<u64>,
    /// Never sleep: answers come sooner where streams are few, and one core is always busy
    #[arg(long)]
    spin: bool,
    /// Answers that wait for a client that does not read, in KiB; the newest are kept
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    outbox: u32,
    /// Time for a client to say what it will send, over HTTP also to take some of an answer; not 0s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_some_time)]
    header_timeout: u64,
    /// A stream that sends nothing for so long is ended; 0s: never
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = args::parse_time)]
    idle_timeout: u64,
    /// How long a client that does not read is waited for before it misses answers
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = args::parse_time)]
    patience: u64,
    /// How long the metrics of a named stream are kept after it has left
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = args::parse_time)]
    metrics_retention: u64,
    /// Time in which all streams end on SIGTERM or Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = args::parse_time)]
    shutdown_timeout: u64,
}

/// A value of `--udp`.
#[derive(Clone, Copy)]
struct UdpArg {
    port: u16,
    format: &'static DatagramFormat,
}

fn parse_udp(text: &str) -> Result<UdpArg, String> {
    let Some((port, name)) = text.split_once('=') else {
        return Err("expected PORT=FORMAT, as 3333=faery-t64".to_owned());
    };
    let port = port.parse().map_err(|_| "expected a port from 0 to 65535".to_owned())?;
    let format = datagrams_by_name(name).map_err(|error| error.to_string())?;
    Ok(UdpArg { port, format })
}

fn parse_some_time(text: &str) -> Result<u64, String> {
    let time_us = args::parse_time(text)?;
    if time_us == 0 { Err("in no time nobody says anything".to_owned()) } else { Ok(time_us) }
}

/// A value of `--overflow`.
#[derive(Clone, Copy)]
struct OverflowArg {
    kind: Option<Kind>,
    rule: Overflow,
}

/// A kind of source.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    Unix,
    Udp,
    Dv,
}

fn parse_overflow(text: &str) -> Result<OverflowArg, String> {
    let (kind, rule) = text.split_once('=').map_or((None, text), |(kind, rule)| (Some(kind), rule));
    let kind = match kind {
        None => None,
        Some("tcp") => Some(Kind::Tcp),
        Some("unix") => Some(Kind::Unix),
        Some("udp") => Some(Kind::Udp),
        Some("dv") => Some(Kind::Dv),
        Some(_) => return Err("known kinds of sources are tcp, unix, udp and dv".to_owned()),
    };
    let rule = match rule {
        "wait" if kind == Some(Kind::Udp) => {
            return Err("a sender of datagrams cannot be made to wait: name drop-newest (the \
                        kernel drops what is not read in time) or skip-to-newest"
                .to_owned());
        }
        "wait" => Overflow::Wait,
        "drop-newest" => Overflow::DropNewest,
        "skip-to-newest" => Overflow::SkipToNewest,
        _ => return Err("known rules are wait, drop-newest and skip-to-newest".to_owned()),
    };
    Ok(OverflowArg { kind, rule })
}

impl LimitArgs {
    fn limits(&self, states: &StateArgs, tick_us: u64) -> Limits {
        let max_streams = usize::from(self.max_streams);
        let flow = |kind: Kind, default: Flow| {
            let plain = matches!(kind, Kind::Tcp | Kind::Unix);
            let own = |arg: &&OverflowArg| arg.kind.map_or(plain, |named| named == kind);
            Flow {
                overflow: self.overflow.iter().rfind(own).map_or(default.overflow, |arg| arg.rule),
                idle: self.idle.map_or(default.idle, Duration::from_micros),
            }
        };
        let default = Limits::default();
        Limits {
            max_streams,
            tcp: flow(Kind::Tcp, default.tcp),
            unix: flow(Kind::Unix, default.unix),
            udp: flow(Kind::Udp, default.udp),
            dv: flow(Kind::Dv, default.dv),
            tick: Duration::from_micros(self.tick.unwrap_or(tick_us)),
            max_connections: max_streams + MAX_TURNED_AWAY,
            outbox_bytes: self.outbox as usize * 1024,
            header_timeout: Duration::from_micros(self.header_timeout),
            idle_timeout: Duration::from_micros(self.idle_timeout),
            patience: Duration::from_micros(self.patience),
            metrics_retention: Duration::from_micros(self.metrics_retention),
            shutdown_timeout: Duration::from_micros(self.shutdown_timeout),
            snapshot_every: Duration::from_micros(states.snapshot_every),
            ..default
        }
    }
}

/// Runs the command.
pub fn main(args: &ServeArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let log = Log::start(args.log_format, common)?;
    let served = serve(args, common, &log);
    log.end();
    served
}

fn serve(args: &ServeArgs, common: &Common, log: &Log) -> anyhow::Result<ExitCode> {
    let listens = args.port.is_some() || args.unix.is_some() || !args.udp.is_empty();
    if !listens && args.connect.is_empty() {
        bail!(
            "no streams would come: name --port N, --unix PATH, --udp PORT=FORMAT or \
             --connect dv://HOST:PORT"
        );
    }
    let twice = args.connect.iter().enumerate().find(|(k, url)| args.connect[..*k].contains(url));
    if let Some((_, url)) = twice {
        bail!("{url} is named twice: a server is dialled once, and its stream has its name");
    }
    let output = args.output.or(common.output);
    if output.is_some_and(|output| output != OutputArg::Jsonl) {
        bail!("serve prints records as JSON Lines: --output jsonl, or none of them without it");
    }
    let (model, bytes) = (open_model(&args.model)?, model_bytes(&args.model)?);
    let (model, view, rules) = settled(model, &args.view, &args.answers, |line| log.note(line))?;
    // A launch costs the same for one stream as for thousands.
    let tick_us = match args.model.device.device {
        DeviceChoice::Cpu => 0,
        DeviceChoice::Cuda(_) => model.card.window_us,
    };
    let serve = Serve {
        tcp: args.port.map(|port| SocketAddr::new(args.bind, port)),
        unix: args.unix.clone(),
        http: args.http.map(|port| SocketAddr::new(args.bind, port)),
        udp: args
            .udp
            .iter()
            .map(|udp| UdpSource {
                address: SocketAddr::new(args.bind, udp.port),
                format: udp.format,
            })
            .collect(),
        dial: args.connect.clone(),
        token_file: args.token_file.clone(),
        config: StreamConfig {
            reading: Reading {
                format: args.decoder.format(),
                decoder: args.decoder.options(),
                view,
                ..Reading::default()
            },
            window: windows_of(&model),
            rules,
        },
        keeping: args.states.keeping()?,
        spin: args.limits.spin,
        limits: args.limits.limits(&args.states, tick_us),
    };
    let log = log.clone();
    let notice: Notices = Arc::new(move |notice| match notice {
        Notice::Listening(what) => {
            let mut out = std::io::stdout();
            // Whoever closed standard output knows where to connect.
            let _ = writeln!(out, "listening {what}").and_then(|()| out.flush());
        }
        Notice::Warning(what) => log.warn(&what),
    });
    let name = args.model.model.as_deref().and_then(Path::file_name);
    let name = name.map_or("poker".into(), |name| name.to_string_lossy());
    let about = About::new(&name, &bytes, &model);
    drop(bytes);
    // A buffer would not tell how much of a line was written.
    let out = output.map(|_| std::io::stdout().as_fd().try_clone_to_owned()).transpose();
    let out = out.context("cannot open standard output")?;
    let records = out.map(|out| Box::new(File::from(out)) as Records);
    run(&model, about, &serve, records, &notice)?;
    Ok(ExitCode::SUCCESS)
}
