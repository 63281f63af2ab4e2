//! Norse's networks from the files that Python writes, and what those files can be instead.
//!
//! Archives are written here as torch.save lays them out; the real ones of the shared folder are
//! read too, and their test says so when it is absent.

mod skip;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dvs_stream::import::{Imported, norse};
use dvs_stream::nn::weights::read;
use dvs_stream::nn::{ChainParameters, Network};
use skip::skip;

/// Name, shape, values.
type Tensor = (&'static str, [usize; 2], Vec<f32>);

#[test]
fn a_state_dict_is_the_same_network_in_both_containers() {
    let plain = import("plain.safetensors", &safetensors(&tensors("")));
    for (name, bytes) in [
        ("prefix.safetensors", safetensors(&tensors("snn."))),
        ("plain.pt", archive(&state_dict(&tensors("")), &storages(&tensors("")))),
        ("prefix.pt", archive(&state_dict(&tensors("snn.")), &storages(&tensors("snn.")))),
    ] {
        assert_eq!(import(name, &bytes), plain, "{name}");
    }
    let Imported { layers, unused } = plain;
    assert_eq!(unused, Vec::<String>::new());
    let [hidden, readout] = layers.as_slice() else { panic!("{} layers", layers.len()) };
    assert_eq!((hidden.spec.cell.as_str(), hidden.spec.inputs, hidden.spec.neurons), ("lif", 6, 3));
    assert_eq!(
        (readout.spec.cell.as_str(), readout.spec.inputs, readout.spec.neurons),
        ("li", 3, 2)
    );
    assert_eq!(hidden.input, tensors("")[0].2);
    assert_eq!(hidden.recurrent.as_ref(), Some(&tensors("")[1].2));
    assert_eq!(readout.input, tensors("")[2].2);
    assert_eq!(hidden.spec.parameters["v_th"], 0.3);
    assert_eq!(readout.spec.parameters["tau_syn_inv"], 200.0);
    Network::new(layers, 1e-3).unwrap();
}

/// A file's first bytes are the length of its header, and some lengths begin as a pickle does.
#[test]
fn a_header_of_any_length_is_a_header() {
    let bytes = safetensors(&tensors(""));
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    for padded in [640, 896, 1152, 1408] {
        let spaces = vec![b' '; padded - length];
        let header = [&(padded as u64).to_le_bytes()[..], &rest[..length], &spaces].concat();
        let weights = read(&[&header, &rest[length..]].concat()).unwrap();
        assert_eq!(weights, read(&bytes).unwrap(), "a header of {padded} bytes");
    }
}

#[test]
fn parameters_reach_their_cells() {
    let parameters = ChainParameters {
        v_th: 1.0,
        tau_mem_inv: 2.0,
        tau_syn_inv: 3.0,
        readout_tau_mem_inv: 4.0,
        readout_tau_syn_inv: 5.0,
        alpha: 6.0,
    };
    let (folder, path) = written("network.safetensors", &safetensors(&tensors("")));
    let Imported { layers, .. } = norse(&path, &parameters).unwrap();
    drop(folder);
    let get = |k: usize, name: &str| layers[k].spec.parameters[name];
    assert_eq!(
        ["v_th", "tau_mem_inv", "tau_syn_inv", "alpha"].map(|n| get(0, n)),
        [1., 2., 3., 6.]
    );
    assert_eq!(["tau_mem_inv", "tau_syn_inv"].map(|name| get(1, name)), [4., 5.]);
}

#[test]
fn the_shared_networks() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let shared = std::env::var("DVS_SHARED").unwrap_or_else(|_| beside.to_owned());
    let golden = PathBuf::from(shared).join("golden");
    if !golden.exists() {
        skip(&format!("{} is absent", golden.display()));
        return;
    }
    let of = |name: &str| norse(&golden.join(name), &ChainParameters::default()).unwrap();
    let seed = of("seed_snn.safetensors");
    assert_eq!(of("seed_snn.pt"), seed, "torch.save and safetensors");
    assert_ne!(of("poker_norse_weights.safetensors"), seed);
    let network = Network::new(seed.layers, 1e-3).unwrap();
    assert_eq!((network.inputs(), network.outputs()), (2450, 4));
}

/// Every other file says what it is.
#[test]
fn other_files_are_refused() {
    let without = |name: &str| {
        let mut tensors = tensors("");
        tensors.retain(|tensor| tensor.0 != name);
        safetensors(&tensors)
    };
    let with = |name: &'static str, shape: [usize; 2]| {
        let mut tensors = tensors("");
        tensors.retain(|tensor| tensor.0 != name);
        tensors.push((name, shape, vec![0.5; shape[0] * shape[1]]));
        safetensors(&tensors)
    };
    let two = [tensors(""), tensors("snn.")].concat();
    let good = archive(&state_dict(&tensors("")), &storages(&tensors("")));
    let how = "In Python: torch.save(model.state_dict(), \"model.pt\")";
    for (name, bytes, expected) in [
        ("empty.pt", vec![], "the file is empty"),
        ("text.pt", b"hello, world".to_vec(), "neither a safetensors file nor one that torch.save"),
        ("pointer.pt", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        ("bare.pt", b"\x80\x02}.".to_vec(), how),
        ("module.pt", archive(&module(), &[]), "a pickled module (__main__ SNN)"),
        ("module.pt", archive(&module(), &[]), how),
        ("list.pt", archive(b"\x80\x02].", &[]), how),
        ("odd.pt", archive(b"\x80\x02\xff.", &[]), "opcode 0xff"),
        ("cut.pt", good[..good.len() / 2].to_vec(), "a broken archive of PyTorch"),
        ("cut.safetensors", without("").split_at(300).0.to_vec(), "a broken safetensors file"),
        ("lost.pt", archive(&state_dict(&tensors("")), &storages(&tensors(""))[..2]), "data/2"),
        (
            "few.pt",
            archive(&state_dict(&tensors("")), &few(&tensors(""))),
            "is the file cut short?",
        ),
        ("big.pt", archive_of("big", &state_dict(&tensors("")), &[]), "big-endian"),
        ("none.safetensors", safetensors(&[]), "the file holds no tensor"),
        ("input.safetensors", without("l1.input_weights"), "no tensor l1.input_weights"),
        ("input.safetensors", without("l1.input_weights"), "the file holds fc_out.weight, l1.rec"),
        ("hidden.safetensors", without("l1.recurrent_weights"), "l1.recurrent_weights is missing"),
        ("readout.safetensors", without("fc_out.weight"), "fc_out.weight is missing"),
        ("shape.safetensors", with("fc_out.weight", [2, 4]), "fc_out.weight has 4 inputs"),
        ("square.safetensors", with("l1.recurrent_weights", [3, 4]), "is 3 × 4"),
        ("bias.safetensors", with("fc_out.bias", [1, 2]), "bias=False"),
        ("two.safetensors", safetensors(&two), "2 networks, under "),
    ] {
        let (folder, path) = written(name, &bytes);
        let error = norse(&path, &ChainParameters::default()).expect_err(name).to_string();
        drop(folder);
        assert!(error.contains(expected), "{name}: {error:?} says nothing of {expected:?}");
        assert!(error.contains(name), "{name}: {error:?} names no file");
    }
    let missing = norse(Path::new("/nowhere/model.pt"), &ChainParameters::default());
    assert!(missing.unwrap_err().to_string().contains("/nowhere/model.pt"));
    assert!(norse(&std::env::temp_dir(), &ChainParameters::default()).is_err());
}

/// Cut anywhere and with any byte changed: an error or a network, never a panic.
#[test]
fn damage_never_panics() {
    for good in [
        archive(&state_dict(&tensors("")), &storages(&tensors(""))),
        archive(&module(), &[]),
        safetensors(&tensors("snn.")),
    ] {
        for at in 0..good.len() {
            let _ = read(&good[..at]);
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                let _ = read(&bytes);
            }
        }
    }
}

/// Pickles made to exhaust stack or memory end like others.
#[test]
fn hostile_pickles_end() {
    let nested = [b"\x80\x02N".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    let mut doubled = b"\x80\x02)".to_vec();
    for _ in 0..60 {
        doubled.extend(b"q\0h\0\x86");
    }
    doubled.push(b'.');
    let mut dictionaries = b"\x80\x02}".to_vec();
    for _ in 0..100_000 {
        dictionaries.extend(b"X\x01\0\0\0a}s}");
    }
    dictionaries.push(b'.');
    let long = b"\x80\x02X\xff\xff\xff\xff.".to_vec();
    let huge = vec![b'('; 5 << 20];
    // A dictionary in itself.
    let cycle = b"\x80\x02}q\0X\x01\0\0\0ah\0s.".to_vec();
    // A parameter that is its own tensor.
    let parameter =
        b"\x80\x02]q\0ctorch._utils\n_rebuild_parameter\nh\0Rq\x01a0}X\x01\0\0\0ah\x01s.";
    assert_eq!(read(&archive(parameter, &[])).unwrap(), vec![]);
    // Dictionaries of a hundred times the same dictionary, four deep.
    let mut repeated = b"\x80\x02X\x01\0\0\0aq\0}q\x01".to_vec();
    for k in 1..4 {
        repeated.extend([b'}', b'q', k + 1]);
        (0..100).for_each(|_| repeated.extend([b'h', 0, b'h', k, b's']));
    }
    repeated.push(b'.');
    let error = read(&archive(&repeated, &[])).unwrap_err().to_string();
    assert!(error.contains("entries"), "{error}");
    for pickle in [nested, doubled, dictionaries, long, huge] {
        assert!(read(&archive(&pickle, &[])).is_err() || pickle.starts_with(b"\x80\x02}"));
    }
    assert_eq!(read(&archive(&cycle, &[])).unwrap(), vec![]);
}

fn tensors(prefix: &'static str) -> Vec<Tensor> {
    let names = match prefix {
        "" => ["l1.input_weights", "l1.recurrent_weights", "fc_out.weight"],
        _ => ["snn.l1.input_weights", "snn.l1.recurrent_weights", "snn.fc_out.weight"],
    };
    let shapes = [[3, 6], [3, 3], [2, 3]];
    let values = |[rows, columns]: [usize; 2]| (0..rows * columns).map(|k| k as f32 / 7.0 - 0.5);
    names.into_iter().zip(shapes).map(|(n, shape)| (n, shape, values(shape).collect())).collect()
}

fn storages(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    let bytes = |tensor: &Tensor| tensor.2.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensors.iter().map(bytes).collect()
}

fn few(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    storages(tensors).into_iter().map(|storage| storage[4..].to_vec()).collect()
}

/// The pickle of an OrderedDict of tensors, opcode by opcode as torch.save writes it.
fn state_dict(tensors: &[Tensor]) -> Vec<u8> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\0)Rq\x01(".to_vec();
    let text = |text: &str| {
        [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    };
    let pair = |[a, b]: [usize; 2]| [b'K', a as u8, b'K', b as u8, 0x86];
    for (k, (name, shape, values)) in tensors.iter().enumerate() {
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend(text(&k.to_string()));
        pickle.extend(text("cpu"));
        pickle.extend([b"J".as_slice(), &(values.len() as i32).to_le_bytes(), b"tQK\0"].concat());
        pickle.extend(pair(*shape));
        pickle.extend(pair([shape[1], 1]));
        pickle.extend(b"\x89h\0)RtR");
    }
    // Modules keep their versions as an attribute of the dictionary.
    pickle.extend([b"u}".as_slice(), &text("_metadata"), b"h\0)Rsb."].concat());
    pickle
}

/// The pickle of a module, which holds its class.
fn module() -> Vec<u8> {
    b"\x80\x02c__main__\nSNN\n)\x81}X\x08\0\0\0training\x88sb.".to_vec()
}

fn archive(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    archive_of("little", pickle, storages)
}

fn archive_of(order: &str, pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        archive.start_file(format!("model/{name}"), stored).unwrap();
        archive.write_all(bytes).unwrap();
    };
    add("data.pkl", pickle);
    add("byteorder", order.as_bytes());
    for (k, storage) in storages.iter().enumerate() {
        add(&format!("data/{k}"), storage);
    }
    archive.finish().unwrap().into_inner()
}

fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let storages = storages(tensors);
    let views = tensors.iter().zip(&storages).map(|((name, shape, _), bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes);
        (*name, view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn import(name: &str, bytes: &[u8]) -> Imported {
    let (_folder, path) = written(name, bytes);
    norse(&path, &ChainParameters::default()).unwrap()
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}
