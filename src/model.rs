//! The model file: a network with everything that its training fixed, in one safetensors file.
//!
//! All metadata is JSON under one key, because the format's metadata is an unordered map and
//! equal models must be equal bytes. Everything is checked at load; afterwards nothing fails for
//! that reason.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::decide::{MAX_READOUT_WINDOWS, Readout};
use crate::error::{Error, Result};
use crate::event::{Sensor, SensorSize};
use crate::nn::weights::check_is_no_pointer;
use crate::nn::{Device, LayerSpec, LayerWeights, Network};
use crate::quantity::format_time_us;
use crate::view::{Crop, Orient, View, ViewSpec};

/// The one metadata key.
pub const METADATA_KEY: &str = "dvs-stream";
/// Version of the metadata that this build writes and reads.
pub const VERSION: u32 = 1;
/// Greatest size of a model file.
pub const MAX_BYTES: u64 = 1 << 30;
/// Longest window.
pub const MAX_WINDOW_US: u64 = 60_000_000;
/// Longest gap, in windows.
pub const MAX_GAP_WINDOWS: u64 = 100_000;
/// Most classes.
pub const MAX_LABELS: usize = 4096;
/// Most pixels of a model's sensor.
pub const MAX_PIXELS: usize = 1 << 21;

/// What a model is besides its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// [`VERSION`] of the build that wrote it.
    pub version: u32,
    /// The sensor that the network sees.
    pub sensor: SensorSize,
    /// Length of a window in µs.
    pub window_us: u64,
    /// Names of the classes, in the order of the outputs.
    pub labels: Vec<String>,
    /// Longer names for people, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub display: Vec<String>,
    /// From a recording's pixels to the network's.
    pub view: ViewSpec,
    /// How the readout's voltage is decoded.
    pub readout: Readout,
    /// Silence that ends a segment, in µs.
    pub gap_us: u64,
    /// A window with at most so many events is quiet.
    pub quiet_events: u32,
    /// The chain of layers, filled in from the network when saving.
    #[serde(default)]
    pub layers: Vec<LayerSpec>,
}

/// A network and its card, agreeing with each other.
#[derive(Clone)]
pub struct Model {
    /// The weights.
    pub network: Arc<Network>,
    /// Everything else.
    pub card: Card,
}

impl Model {
    /// Builds the network and checks it against the card.
    ///
    /// # Errors
    /// [`Error::Model`] says what does not fit.
    pub fn new(mut card: Card, layers: Vec<LayerWeights>) -> Result<Self> {
        card.view = card.view.kept();
        check_card(&card)?;
        let network = Network::new(layers, card.window_us as f64 * 1e-6)?;
        let (inputs, outputs) = (network.inputs(), network.outputs());
        if inputs != card.sensor.addresses() {
            return Err(Error::Model(format!(
                "the first layer has {inputs} inputs, but a sensor of {} has {} addresses (two \
                 polarities a pixel)",
                card.sensor,
                card.sensor.addresses()
            )));
        }
        if outputs != card.labels.len() {
            return Err(Error::Model(format!(
                "the last layer has {outputs} outputs for {} labels",
                card.labels.len()
            )));
        }
        card.layers = network.layers().cloned().collect();
        Ok(Model { network: Arc::new(network), card })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Model`] says what is damaged or does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        check_is_no_pointer(bytes)?;
        let damaged = |error: safetensors::SafeTensorError| {
            Error::Model(format!(
                "not a whole safetensors file ({error}): copy it again, or make one with \
                 `dvs-stream train` or `dvs-stream import norse`"
            ))
        };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
        let Some(text) = text else {
            return Err(Error::Model(format!(
                "no '{METADATA_KEY}' metadata: weights alone are no model; `dvs-stream import \
                 norse` turns Norse's state_dict into one"
            )));
        };
        let card: Card = serde_json::from_str(text).map_err(|error| {
            Error::Model(format!("its '{METADATA_KEY}' metadata cannot be read: {error}"))
        })?;
        let layers = card.layers.iter().enumerate();
        let layers =
            layers.map(|(k, spec)| read_layer(&tensors, k, spec)).collect::<Result<Vec<_>>>()?;
        Model::new(card, layers)
    }

    /// The model with its network on a device.
    ///
    /// # Errors
    /// When the device does not take the network.
    pub fn on(self, device: &Device) -> Result<Self> {
        let network = Arc::new(self.network.on(device)?);
        Ok(Model { network, ..self })
    }

    /// The bytes of the model file; equal models give equal bytes.
    ///
    /// # Errors
    /// [`Error::Model`] when the metadata cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Model(format!("cannot be saved: {error}"));
        let text = serde_json::to_string(&self.card).map_err(|error| failed(&error))?;
        let mut stored: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        for (k, layer) in self.network.weights()?.into_iter().enumerate() {
            let LayerSpec { inputs, neurons, .. } = layer.spec;
            stored.push((input_name(k), vec![neurons, inputs], bytes(&layer.input)));
            if let Some(recurrent) = &layer.recurrent {
                stored.push((recurrent_name(k), vec![neurons, neurons], bytes(recurrent)));
            }
        }
        let views = stored.iter().map(|(name, shape, data)| {
            TensorView::new(Dtype::F32, shape.clone(), data).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<std::result::Result<Vec<_>, _>>();
        let views = views.map_err(|error| failed(&error))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), text)]);
        safetensors::serialize(views, Some(metadata)).map_err(|error| failed(&error))
    }
}

fn input_name(layer: usize) -> String {
    format!("layers.{layer}.input_weights")
}

fn recurrent_name(layer: usize) -> String {
    format!("layers.{layer}.recurrent_weights")
}

fn read_layer(tensors: &SafeTensors<'_>, k: usize, spec: &LayerSpec) -> Result<LayerWeights> {
    let LayerSpec { inputs, neurons, .. } = *spec;
    let input = read_tensor(tensors, &input_name(k), [neurons, inputs])?;
    let recurrent = if spec.recurrent {
        Some(read_tensor(tensors, &recurrent_name(k), [neurons, neurons])?)
    } else {
        None
    };
    Ok(LayerWeights { spec: spec.clone(), input, recurrent })
}

fn read_tensor(tensors: &SafeTensors<'_>, name: &str, shape: [usize; 2]) -> Result<Vec<f32>> {
    let view = tensors
        .tensor(name)
        .map_err(|_| Error::Model(format!("the tensor '{name}' is missing")))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(Error::Model(format!(
            "the tensor '{name}' is {:?} {:?}, expected F32 {shape:?}",
            view.dtype(),
            view.shape()
        )));
    }
    let values = view.data().as_chunks::<4>().0;
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn check_card(card: &Card) -> Result<()> {
    let refuse = |what: String| Err(Error::Model(what));
    let SensorSize { width, height } = card.sensor;
    if card.version != VERSION {
        return refuse(format!(
            "its version is {}, this build reads {VERSION}: install a newer dvs-stream, or train \
             the model again",
            card.version
        ));
    }
    if width == 0 || height == 0 || card.sensor.pixels() > MAX_PIXELS {
        return refuse(format!(
            "a sensor of {} is not between 1 and {MAX_PIXELS} pixels",
            card.sensor
        ));
    }
    if !(1..=MAX_WINDOW_US).contains(&card.window_us) {
        return refuse(format!("a window of {} µs is not in 1..{MAX_WINDOW_US}", card.window_us));
    }
    check_gap(card.gap_us, card.window_us)?;
    check_readout(card.readout, card.window_us)?;
    check_labels(&card.labels)?;
    if !card.display.is_empty() && card.display.len() != card.labels.len() {
        return refuse("as many display names as labels are needed, or none".to_owned());
    }
    check_names("display name", &card.display)?;
    check_view(&card.view, card.sensor)
}

/// A view must lead onto the sensor where a recording names no size; what one that does name it
/// may contradict is not the model's fault.
fn check_view(view: &ViewSpec, sensor: SensorSize) -> Result<()> {
    let cut = view.crop.map(|Crop { width, height, .. }| SensorSize { width, height });
    let possible = [view.unnamed_sensor, cut].into_iter().flatten().all(SensorSize::is_possible);
    // Mirrored or not, the pixels are as many.
    let unmirrored = ViewSpec { orient: Orient::Stored, flip_x: false, flip_y: false, ..*view };
    if possible && View::new(&unmirrored, &Sensor::default(), sensor).is_ok() {
        return Ok(());
    }
    Err(Error::Model(format!(
        "its view (crop, scale, size of the recording's sensor) does not lead onto its own sensor \
         of {sensor} pixels"
    )))
}

/// Checks a gap against the window.
///
/// # Errors
/// [`Error::Model`] when it is 0 or longer than [`MAX_GAP_WINDOWS`].
pub fn check_gap(gap_us: u64, window_us: u64) -> Result<()> {
    if gap_us == 0 || gap_us / window_us.max(1) > MAX_GAP_WINDOWS {
        return Err(Error::Model(format!(
            "a gap of {gap_us} µs is not between 1 µs and {MAX_GAP_WINDOWS} windows"
        )));
    }
    Ok(())
}

/// Checks the span of a sliding maximum against the window.
///
/// # Errors
/// [`Error::Model`] when it is longer than [`MAX_READOUT_WINDOWS`].
pub fn check_readout(readout: Readout, window_us: u64) -> Result<()> {
    match readout {
        Readout::MaxOver(t_us) if t_us / window_us.max(1) > MAX_READOUT_WINDOWS => {
            Err(Error::Model(format!(
                "a maximum over {} is longer than {MAX_READOUT_WINDOWS} windows: take max, or a \
                 shorter time",
                format_time_us(t_us)
            )))
        }
        _ => Ok(()),
    }
}

/// Checks that a model can have these labels.
///
/// # Errors
/// [`Error::Model`] when there are none or too many, or one is no short plain text or there twice.
pub fn check_labels(labels: &[String]) -> Result<()> {
    if labels.is_empty() || labels.len() > MAX_LABELS {
        return Err(Error::Model(format!("{} labels are not in 1..{MAX_LABELS}", labels.len())));
    }
    check_names("label", labels)
}

fn check_names(what: &str, names: &[String]) -> Result<()> {
    for (k, name) in names.iter().enumerate() {
        let plain = !name.is_empty() && name.len() <= 64 && !name.contains(char::is_control);
        if !plain || names[..k].contains(name) {
            return Err(Error::Model(format!(
                "the {what} {:?} is empty, too long (64 bytes), named twice or not plain text",
                name.chars().take(64).collect::<String>()
            )));
        }
    }
    Ok(())
}
