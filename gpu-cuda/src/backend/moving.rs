//! What moves moments and active coordinates, unless the step is skipped.

use super::gradient::{decoupled, rates};
use super::{Cuda, DeviceArena, mask_address};
use crate::arguments::{Carry, Clear, Update};
use crate::buffer::TensorMut;
use crate::error::Error;
use blockllm::Backend;
use blockllm::adam::Hyper;
use blockllm::backend::{Moment, Switch, Work};
use blockllm::moments::Region;

impl Cuda {
    /// What a step that switches does with the moments.
    pub(super) fn switch(&mut self, a: &mut DeviceArena, w: &Work<'_>) -> Result<(), Error> {
        match w.switch {
            None => {}
            Some(Switch::Reset) => w.active.iter().try_for_each(|r| self.clear(a, r))?,
            Some(Switch::Carry(_)) => {
                for moment in [Moment::First, Moment::Second] {
                    w.active.iter().try_for_each(|r| self.carry(a, moment, w.stays(r), r))?;
                    core::mem::swap(if moment == Moment::First { &mut a.m } else { &mut a.v }, &mut a.spare);
                }
            }
        }
        Ok(())
    }

    pub(super) fn queue_clear(&mut self, a: &DeviceArena, r: &Region) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        let arguments = Clear { m: a.m.at(r.at), v: a.v.at(r.at), flags: a.flags.at(0), k: r.k as u64 };
        self.launch_over(kernels.clear.of(a.m.dtype())?, r.k, &arguments)
    }

    pub(super) fn queue_carry(
        &mut self, a: &DeviceArena, moment: Moment, old: Option<&Region>, new: &Region,
    ) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        let from = if moment == Moment::First { &a.m } else { &a.v };
        let arguments = Carry {
            from: old.map_or(0, |r| from.at(r.at)),
            to: a.spare.at(new.at),
            old_mask: old.map_or(0, |r| mask_address(&a.old_masks, r)),
            new_mask: mask_address(&a.masks, new),
            flags: a.flags.at(0),
            n: new.n as u64,
            k: new.k as u64,
        };
        self.launch_over(kernels.carry.of(a.spare.dtype())?, new.n, &arguments)
    }

    pub(super) fn queue_update(
        &mut self, a: &DeviceArena, r: &Region, old: Option<&Region>, p: &TensorMut<'_>, h: &Hyper,
    ) -> Result<(), Error> {
        let (kernels, p) = (self.kernels.clone(), p.as_tensor());
        let (lr, wd) = (h.lr * r.scales.lr, h.weight_decay * r.scales.weight_decay);
        let arguments = Update {
            p: p.address(),
            g: a.gradient.at(r.gradient_at),
            m: a.m.at(r.at),
            v: a.v.at(r.at),
            mask: mask_address(&a.masks, r),
            old_mask: old.map_or(0, |o| mask_address(&a.old_masks, o)),
            powers: a.powers.at(4 * r.block as usize),
            norm: a.norm.at(0),
            flags: a.flags.at(0),
            n: r.n as u64,
            inv_loss_scale: h.inv_loss_scale,
            lr,
            shrink: 1.0 - lr * wd,
            weight_decay: wd,
            decoupled: decoupled(h, "update", p.dtype())?,
            rates: rates(h),
        };
        self.launch_over(kernels.update.of(p.dtype())?, r.n, &arguments)
    }
}
