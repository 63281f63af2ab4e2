//! Training: the streaming network's own cells, learned from labelled recordings.

pub mod loss;
