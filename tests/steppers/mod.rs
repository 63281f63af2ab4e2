//! The GPU's kernels in every way that is at hand: compiled for the CPU, their threads in both orders,
//! and on a GPU.

use dvs_stream::nn::{Device, Network};

/// Names, and networks that must step as `network` does, bit for bit, each on one of [`devices`].
#[allow(dead_code)]
pub fn steppers(network: &Network, shared_bytes: usize, blocks: usize) -> Vec<(String, Network)> {
    let devices = devices(shared_bytes, blocks).into_iter();
    devices.map(|(name, device)| (name, network.on(&device).unwrap())).collect()
}

/// Names and devices. On the CPU a block has so much shared memory, and so many blocks run at once.
#[cfg_attr(not(feature = "kernel-host"), allow(unused_variables))]
pub fn devices(shared_bytes: usize, blocks: usize) -> Vec<(String, Device)> {
    let mut all = Vec::new();
    #[cfg(feature = "kernel-host")]
    for (reversed, launch_words) in [(false, 64), (true, 1 << 16)] {
        let choice = dvs_stream::nn::KernelOnHost { reversed, shared_bytes, blocks, launch_words };
        all.push((format!("{choice:?}"), Device::kernels_on_host(choice)));
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = gpu() {
        all.push(("GPU".to_owned(), device.clone()));
    }
    all
}

/// The first GPU, opened once; without one, says that it is skipped.
#[cfg(feature = "cuda")]
fn gpu() -> Option<&'static Device> {
    use std::sync::OnceLock;

    use dvs_stream::nn::DeviceChoice;

    static GPU: OnceLock<Option<Device>> = OnceLock::new();
    let open = || match DeviceChoice::Cuda(0).open() {
        Ok(device) => Some(device),
        Err(error) => {
            crate::skip::skip(&error.to_string());
            None
        }
    };
    GPU.get_or_init(open).as_ref()
}
