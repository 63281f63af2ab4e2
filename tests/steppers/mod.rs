//! A network stepped by the GPU's kernel in every way that is at hand: compiled for the CPU, its
//! threads in both orders, and on a GPU.

use dvs_stream::nn::Network;

/// Names, and networks that must step as `network` does, bit for bit. On the CPU a block has so much
/// shared memory, and so many blocks run at once.
#[cfg_attr(not(feature = "kernel-host"), allow(unused_variables))]
pub fn steppers(network: &Network, shared_bytes: usize, blocks: usize) -> Vec<(String, Network)> {
    let mut all = Vec::new();
    #[cfg(feature = "kernel-host")]
    for (reversed, launch_words) in [(false, 64), (true, 1 << 16)] {
        let choice = dvs_stream::nn::KernelOnHost { reversed, shared_bytes, blocks, launch_words };
        let device = dvs_stream::nn::Device::kernels_on_host(choice);
        all.push((format!("{choice:?}"), network.on(&device).unwrap()));
    }
    #[cfg(feature = "cuda")]
    if let Some(device) = gpu() {
        all.push(("GPU".to_owned(), network.on(device).unwrap()));
    }
    all
}

/// The first GPU, opened once; without one, says that it is skipped.
#[cfg(feature = "cuda")]
fn gpu() -> Option<&'static dvs_stream::nn::Device> {
    use std::sync::OnceLock;

    use dvs_stream::nn::{Device, DeviceChoice};

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
