//! Trace: every state variable of every stepped window, for records and for tests.
//!
//! Knows names and rows; costs only where one is asked for.

use super::op::Layer;

/// Variables of all planned steps of the rollouts that it was given to, in order.
///
/// Names are `hidden.z`, `hidden.v`, `hidden.i`, `readout.v`, `readout.i`, by the cells'
/// variables; the last layer is the readout, several hidden ones are `hidden0`, `hidden1`, ….
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    variables: Vec<TracedVariable>,
}

/// One variable of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedVariable {
    /// Layer and variable.
    pub name: String,
    /// Neurons of the layer: values a step.
    pub width: usize,
    /// Values, \[steps, width\].
    pub rows: Vec<f32>,
}

impl Trace {
    /// All variables, in the order of a packed row.
    pub fn variables(&self) -> &[TracedVariable] {
        &self.variables
    }

    /// The rows of a variable, \[steps, width\].
    pub fn rows(&self, name: &str) -> Option<&[f32]> {
        self.variables.iter().find(|variable| variable.name == name).map(|v| v.rows.as_slice())
    }

    /// Forgets all steps, keeps the memory.
    pub fn clear(&mut self) {
        self.variables.iter_mut().for_each(|variable| variable.rows.clear());
    }

    pub(super) fn new(layers: &[Layer]) -> Trace {
        let n_hidden = layers.len().saturating_sub(1);
        let variables = layers.iter().enumerate().flat_map(|(k, layer)| {
            let place = match (k == n_hidden, n_hidden) {
                (true, _) => "readout".to_owned(),
                (false, 1) => "hidden".to_owned(),
                (false, _) => format!("hidden{k}"),
            };
            layer.kind.variables.iter().map(move |variable| TracedVariable {
                name: format!("{place}.{variable}"),
                width: layer.neurons,
                rows: Vec::new(),
            })
        });
        Trace { variables: variables.collect() }
    }

    /// Whether the trace is one of a network with these layers.
    pub(super) fn fits(&self, layers: &[Layer]) -> bool {
        let widths =
            layers.iter().flat_map(|layer| layer.kind.variables.iter().map(|_| layer.neurons));
        widths.eq(self.variables.iter().map(|variable| variable.width))
    }

    /// Appends the variables of a slot's padded row.
    pub(super) fn push(&mut self, layers: &[Layer], row: &[f32]) {
        let places = layers
            .iter()
            .flat_map(|layer| (0..layer.kind.variables.len()).map(|k| layer.variable(k)));
        for (variable, place) in self.variables.iter_mut().zip(places) {
            variable.rows.extend_from_slice(&row[place]);
        }
    }
}
