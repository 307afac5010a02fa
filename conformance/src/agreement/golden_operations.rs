//! The golden operations on a backend: PyTorch's Adam, exact masks, trajectories across switches.

use crate::cases::region;
use crate::drive::{self, Drive};
use crate::golden::{self, close, floats, metadata, shape};
use crate::harness::{Agreement, Harness};
use crate::host::Host;
use crate::lockstep::{Lockstep, numbers};
use crate::pair::{Field, Layout, Pair, nothing};
use blockllm::adam::{Hyper, Powers, Scales};
use blockllm::backend::{Moment, flag, norm};
use blockllm::mask::{self, Mask};
use blockllm::moments::Region;
use blockllm::{BlockSpec, Config, DType, Decay, MaskKind, Optimizer, Step, View};
use safetensors::SafeTensors;
use serde_json::Value;

/// One of PyTorch's trajectories.
struct Adam {
    key: String,
    dtype: DType,
    config: Config,
    lr: f64,
    steps: usize,
    p: Vec<f64>,
    grads: Vec<f64>,
}

fn number(v: &Value, key: &str) -> f64 {
    v[key].as_f64().unwrap_or_else(|| panic!("{key} is no number"))
}

impl Adam {
    fn new(file: &SafeTensors<'_>, key: String, meta: &str) -> Self {
        let meta: Value = serde_json::from_str(meta).expect("a case");
        let config = Config {
            betas: [number(&meta, "beta1"), number(&meta, "beta2")],
            eps: number(&meta, "eps"),
            weight_decay: number(&meta, "weight_decay"),
            decay: if meta["decoupled"] == Value::Bool(true) { Decay::Decoupled } else { Decay::L2 },
            ..Config::adamw()
        };
        Self {
            dtype: if key.ends_with("f64") { DType::F64 } else { DType::F32 },
            config,
            lr: number(&meta, "lr"),
            steps: number(&meta, "steps") as usize,
            p: floats(file, &format!("{key}.param0")),
            grads: floats(file, &format!("{key}.grads")),
            key,
        }
    }

    fn specs(&self) -> [BlockSpec; 1] {
        [BlockSpec::new("p", [1, self.p.len()]).dtype(self.dtype)]
    }

    fn tensor(&self, x: &[f64]) -> Host {
        Host::from_doubles(x.iter().copied(), self.dtype)
    }

    fn grads(&self, t: usize) -> Vec<Vec<Host>> {
        let n = self.p.len();
        vec![vec![self.tensor(&self.grads[(t - 1) * n..t * n])]]
    }

    /// Runs by itself, within A6.6 of PyTorch.
    fn against_pytorch<H: Harness>(&self, h: &mut H, file: &SafeTensors<'_>) {
        let fail = |e: String| -> ! { panic!("{} {}: {e}", H::NAME, self.key) };
        let made = Optimizer::new(h.backend(), &self.specs(), self.config.clone());
        let mut o = made.unwrap_or_else(|e| fail(e.to_string()));
        let mut params = vec![h.upload(self.tensor(&self.p).view())];
        let wd = if self.config.decay == Decay::L2 { self.config.weight_decay } else { 0.0 };
        let mut largest = vec![0.0f64; self.p.len()];
        for t in 1..=self.steps {
            let (grads, before) = (self.grads(t), h.download(o.backend_mut(), &params[0]).doubles());
            for ((big, g), p) in largest.iter_mut().zip(grads[0][0].doubles()).zip(before) {
                *big = big.max(g.abs() + wd * p.abs());
            }
            drive::step(h, &mut o, &mut params, Step::new(self.lr), &grads, Drive::Whole).unwrap_or_else(|e| fail(e.to_string()));
            if file.tensor(&format!("{}.param.t{t}", self.key)).is_err() {
                continue;
            }
            let (eps, of_p) = if self.dtype == DType::F64 { (f64::EPSILON, 1e-15) } else { (f64::from(f32::EPSILON), 2.5e-7) };
            let at = |name: &str| format!("{}.{name}.t{t}", self.key);
            let [p, m, v] = ["param", "m", "v"].map(|name| floats(file, &at(name)));
            let saved = o.save().unwrap_or_else(|e| fail(e.to_string()));
            let moment = |name: &str| numbers(saved.get(name).expect("a moment"));
            close(&at("p"), &h.download(o.backend_mut(), &params[0]).doubles(), &p, |i| of_p * p[i].abs().max(1.0));
            close(&at("m"), &moment("m/p"), &m, |i| 16.0 * eps * m[i].abs().max(largest[i]));
            close(&at("v"), &moment("v/p"), &v, |i| 16.0 * eps * v[i].max(largest[i] * largest[i]));
        }
    }

    fn beside_the_reference<H: Harness>(&self, h: &mut H) {
        let mut pair = Lockstep::new(h, &self.specs(), &self.config, vec![self.tensor(&self.p)], Drive::Whole, &self.key);
        for t in 1..=self.steps {
            pair.step(Step::new(self.lr), &self.grads(t));
        }
    }
}

/// A6.6 for a backend that agrees to the bit; one that agrees within bounds is held to the reference on the same data.
pub fn adam_as_pytorch<H: Harness>(h: &mut H) {
    let bytes = golden::bytes("adam.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let cases = metadata(&bytes);
    assert_eq!(cases.len(), 8);
    for (key, meta) in cases {
        let case = Adam::new(&file, key, &meta);
        if !H::supports(case.dtype) {
            println!("left out: {}: {} has no {}", case.key, H::NAME, case.dtype);
        } else if H::AGREEMENT == Agreement::Bits {
            case.against_pytorch(h, &file);
        } else {
            case.beside_the_reference(h);
        }
    }
}

/// A4.4, A4.5 on the golden gradients, whatever the agreement.
pub fn exact_masks<H: Harness>(h: &mut H) {
    let bytes = golden::bytes("masks.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (mut checked, mut left_out) = (0, 0);
    for name in file.names().into_iter().filter(|n| !n.ends_with(".values")) {
        let parts: Vec<&str> = name.split('.').collect();
        let dtype = if parts[1] == "f64" { DType::F64 } else { DType::F32 };
        if !H::supports(dtype) {
            left_out += 1;
            continue;
        }
        let values = floats(&file, &format!("{}.{}.values", parts[0], parts[1]));
        let k: usize = parts[2][1..].parse().expect("a count");
        let kind = parts.get(3).map_or(MaskKind::Coordinate, |t| MaskKind::Tile(t[4..].parse().expect("a tile")));
        let n = values.len();
        let mut want: Vec<u8> = file.tensor(name).expect("a mask").data().to_vec();
        if k == n {
            // Whole, so it has no mask.
            want.iter_mut().for_each(|w| *w ^= 1);
        } else if k > 0 {
            let layout = Layout { blocks: vec![(dtype, n)], capacity: n, mask_words: [mask::words(n), 0] };
            let mut pair = Pair::new(h, &layout, name);
            pair.build_mask(&region(0, n, k, 0, 0), &Host::from_doubles(values.into_iter(), dtype), kind);
            pair.check(&nothing);
            let View::U32(words) = Field::Masks.of(&pair.host).view(0, mask::words(n)) else { panic!("words") };
            let built = Mask::new(words, n);
            for (i, w) in want.iter_mut().enumerate() {
                *w ^= u8::from(built.contains(i));
            }
        }
        assert!(want.iter().all(|w| *w == 0), "{} {name}", H::NAME);
        checked += 1;
    }
    println!("{checked} masks on {}, {left_out} of types that it does not have", H::NAME);
    assert!(checked > 50, "{checked} masks");
}

/// One block across changing masks, operation by operation.
struct Trajectory<'f> {
    file: &'f SafeTensors<'f>,
    hyper: Hyper,
    carry: bool,
    /// Steps with one mask.
    segment: usize,
}

impl Trajectory<'_> {
    fn run<H: Harness>(&self, h: &mut H) {
        let (grads, masks) = (floats(self.file, "grads"), floats(self.file, "masks"));
        let mut p = Host::F64(floats(self.file, "param0"));
        let n = p.len();
        let words = mask::words(n);
        let layout = Layout { blocks: vec![(DType::F64, n)], capacity: n, mask_words: [words; 2] };
        let mut pair = Pair::new(h, &layout, if self.carry { "carry" } else { "reset" });
        pair.set_flags(&[0; flag::LEN]);
        pair.write(Field::Norm, norm::CLIP, View::F64(&[1.0]));
        let (mut powers, mut old) = (Powers::START, None::<Region>);
        for segment in 0..shape(self.file, "masks")[0] {
            // The mask of the largest |x| of 0 and 1 is the mask itself.
            let now = &masks[segment * n..(segment + 1) * n];
            let k = now.iter().filter(|&&x| x == 1.0).count();
            let new = Region { scales: Scales::default(), ..region(0, n, k, 0, 0) };
            let before = Field::Masks.of(&pair.host).clone();
            pair.write(Field::OldMasks, 0, before.view(0, words));
            if new.masked() {
                pair.build_mask(&new, &Host::F64(now.to_vec()), MaskKind::Coordinate);
            }
            let stays = old.as_ref().filter(|_| self.carry);
            if stays.is_some() {
                for moment in [Moment::First, Moment::Second] {
                    pair.carry(moment, stays, &new);
                    pair.swap(moment);
                }
            } else {
                powers = Powers::START;
                pair.clear(&new);
            }
            for i in 0..self.segment {
                let t = segment * self.segment + i;
                powers.advance(self.hyper.betas);
                let [b, n_] = [powers.before, powers.now];
                pair.write(Field::Powers, 0, View::F64(&[b[0], b[1], n_[0], n_[1]]));
                pair.gather(&new, &Host::F64(grads[t * n..(t + 1) * n].to_vec()), false);
                pair.update(&new, stays.filter(|_| i == 0), &mut p, &self.hyper, &|_, _| 0.0);
                pair.check(&nothing);
            }
            self.compare(&pair, &new, &p, segment);
            old = Some(new);
        }
    }

    fn compare<H: Harness>(&self, pair: &Pair<'_, H>, r: &Region, p: &Host, segment: usize) {
        let View::U32(words) = Field::Masks.of(&pair.host).view(0, mask::words(r.n)) else { panic!("words") };
        let mask = r.mask(words);
        let dense = |field: Field| -> Vec<f64> {
            let View::F64(packed) = field.of(&pair.host).view(0, r.k) else { panic!("doubles") };
            (0..r.n).map(|i| if mask.contains(i) { packed[mask.rank(i)] } else { 0.0 }).collect()
        };
        let name = if self.carry { "carry" } else { "reset" };
        for (what, got) in [("param", p.doubles()), ("m", dense(Field::M)), ("v", dense(Field::V))] {
            let key = format!("{name}.{what}.after{segment}");
            let want = floats(self.file, &key);
            close(&key, &got, &want, |i| 1e-13 * want[i].abs());
        }
    }
}

/// Reset and Carry (A5.4). The data is f64.
pub fn switch_trajectories<H: Harness>(h: &mut H) {
    if !H::supports(DType::F64) {
        println!("left out: switch trajectories: {} has no f64", H::NAME);
        return;
    }
    let bytes = golden::bytes("switch.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let config: Value = serde_json::from_str(&metadata(&bytes)["config"]).expect("a configuration");
    let of = |key: &str| number(&config, key);
    let hyper = Hyper {
        lr: of("lr"),
        betas: [of("beta1"), of("beta2")],
        eps: of("eps"),
        weight_decay: of("weight_decay"),
        decay: Decay::Decoupled,
        inv_loss_scale: 1.0,
        clip: None,
        sign_scale: None,
    };
    for carry in [false, true] {
        Trajectory { file: &file, hyper, carry, segment: of("steps_per_segment") as usize }.run(h);
    }
}
