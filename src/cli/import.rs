//! `dvs-stream import`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::args::{parse_size, parse_time, parse_window};
use super::{Common, check_flag, check_new_file, tell};
use crate::decide::Readout;
use crate::event::SensorSize;
use crate::import::norse;
use crate::model::{Card, Model, VERSION, check_gap, check_labels, check_readout};
use crate::nn::{ChainParameters, check_specs};
use crate::store;
use crate::view::ViewSpec;

const EXAMPLES: &str = "Example:
  dvs-stream import norse model.pt --labels cl,di,he,sp --sensor 35x35 --out M.safetensors";

/// Make a model of another framework's network
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Subcommand)]
enum From {
    Norse(NorseArgs),
}

const NORSE_HELP: &str = "\
Example:
  dvs-stream import norse model.pt --labels cl,di,he,sp --sensor 35x35 --out M.safetensors

IN holds a state_dict, as `torch.save(model.state_dict(), \"model.pt\")` or safetensors' \
`save_file(model.state_dict(), \"model.safetensors\")` write it: l1.input_weights, \
l1.recurrent_weights and fc_out.weight, also under a common prefix such as `snn.`. What a \
state_dict does not hold stands in the flags; their defaults are the tutorial's.

Labels stand in the order of the network's outputs. Tonic's POKERDVS numbers its classes cl, he, \
di, sp; class folders by name are cl, di, he, sp. A network trained on Tonic's numbers needs \
--labels cl,he,di,sp.";

/// Norse's tutorial network from its state_dict (.pt or .safetensors)
#[derive(Args)]
#[command(before_help = NORSE_HELP)]
struct NorseArgs {
    /// The state_dict
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Model file to write
    #[arg(long, value_name = "M")]
    out: PathBuf,
    /// Names of the classes, in the order of the outputs
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = trimmed, required = true)]
    labels: Vec<String>,
    /// Sensor that the network sees
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    sensor: SensorSize,
    /// Length of a window
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = parse_window)]
    window: u64,
    /// Decoding of the readout
    #[arg(long, value_name = "READOUT", default_value = "max")]
    readout: Readout,
    /// Silence that ends a segment
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_time)]
    gap: u64,
    /// A window with at most so many events is quiet
    #[arg(id = "quiet_events", long = "quiet", value_name = "N", default_value_t = 5)]
    quiet: u32,
    /// Threshold of the hidden layer
    #[arg(long, value_name = "V", default_value_t = ChainParameters::default().v_th)]
    v_th: f64,
    /// Membrane rate of the hidden layer, in 1/s
    #[arg(long, value_name = "RATE", default_value_t = ChainParameters::default().tau_mem_inv)]
    tau_mem_inv: f64,
    /// Synaptic rate of the hidden layer, in 1/s
    #[arg(long, value_name = "RATE", default_value_t = ChainParameters::default().tau_syn_inv)]
    tau_syn_inv: f64,
    /// Membrane rate of the readout, in 1/s
    #[arg(long, value_name = "RATE", default_value_t = ChainParameters::default().readout_tau_mem_inv)]
    readout_tau_mem_inv: f64,
    /// Synaptic rate of the readout, in 1/s
    #[arg(long, value_name = "RATE", default_value_t = ChainParameters::default().readout_tau_syn_inv)]
    readout_tau_syn_inv: f64,
    /// Steepness of the surrogate gradient, for training on
    #[arg(long, value_name = "ALPHA", default_value_t = ChainParameters::default().alpha)]
    alpha: f64,
}

/// What stands between commas may have blanks around it.
fn trimmed(text: &str) -> Result<String, Infallible> {
    Ok(text.trim().to_owned())
}

/// Runs the command.
pub fn main(args: &ImportArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let From::Norse(args) = &args.from;
    check_new_file("--out", "model file", &args.out, &[&args.input])?;
    let (bytes, unused) = model_of(args)?;
    store::replace(&args.out, &bytes)?;
    if !common.quiet {
        if !unused.is_empty() {
            tell(format_args!("note: not used: {}", unused.join(", ")));
        }
        tell(format_args!("{}: a model of {} classes", args.out.display(), args.labels.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn model_of(args: &NorseArgs) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
    let parameters = ChainParameters {
        v_th: args.v_th,
        tau_mem_inv: args.tau_mem_inv,
        tau_syn_inv: args.tau_syn_inv,
        readout_tau_mem_inv: args.readout_tau_mem_inv,
        readout_tau_syn_inv: args.readout_tau_syn_inv,
        alpha: args.alpha,
    };
    let mut specs = [parameters.hidden(1, 1), parameters.readout(1, 1)];
    let fit = check_specs(specs.iter_mut(), args.window as f64 * 1e-6);
    check_flag("the cells' parameters", fit.map(drop))?;
    check_flag("--gap", check_gap(args.gap, args.window))?;
    check_flag("--readout", check_readout(args.readout, args.window))?;
    check_flag("--labels", check_labels(&args.labels))?;
    let imported = norse(&args.input, &parameters)?;
    let (inputs, outputs) = (imported.inputs(), imported.outputs());
    if inputs != args.sensor.addresses() {
        bail!(
            "--sensor {}: the network has {inputs} inputs, but such a sensor {} addresses (two \
             polarities a pixel)",
            args.sensor,
            args.sensor.addresses()
        );
    }
    if outputs != args.labels.len() {
        bail!("--labels: {} names for the network's {outputs} outputs", args.labels.len());
    }
    let card = Card {
        version: VERSION,
        sensor: args.sensor,
        window_us: args.window,
        labels: args.labels.clone(),
        display: Vec::new(),
        view: ViewSpec::default(),
        readout: args.readout,
        gap_us: args.gap,
        quiet_events: args.quiet,
        layers: Vec::new(),
    };
    let model = Model::new(card, imported.layers)?;
    Ok((model.to_bytes()?, imported.unused))
}
