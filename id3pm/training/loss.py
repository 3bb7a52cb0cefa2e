"""The training loss: improved DDPM's hybrid objective with a learned variance.

Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, eq. 15-16:
L_hybrid = L_simple + lambda L_vlb with lambda = 1/1000 (per step of T = 1000), where L_vlb trains the variance alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from id3pm.config import DiffusionConfig
from id3pm.diffusion.schedule import respaced_schedule

LARGEST_WEIGHT = 100.0  # of a timestep, at the noisy end
LEVELS = 255.0  # neighbouring pixel values are 2 / 255 apart in [-1, 1]


class HybridLoss(nn.Module):
    """Noises images and scores a network's output; holds the schedule's tables as float32 buffers.

    Args:
        diffusion: The noising process.
        learn_sigma: The output carries the variance interpolation in its last 3 channels.
        min_snr_gamma: Weights L_simple by min(SNR, gamma) / SNR (Hang et al., "Efficient Diffusion Training via
            Min-SNR Weighting Strategy", ICCV 2023, for eps prediction); `None` is the paper's equal weighting.
        snr_floor: Raises that weight to floor / SNR, up to 100, as the truncated SNR of Salimans and Ho, "Progressive
            Distillation for Fast Sampling of Diffusion Models", ICLR 2022 (there 1): what the noisiest steps get wrong
            is the colour of the whole image, which equal weighting hardly sees. 0 does not.
    """

    def __init__(
        self,
        diffusion: DiffusionConfig,
        *,
        learn_sigma: bool,
        min_snr_gamma: float | None = None,
        snr_floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.learn_sigma = learn_sigma
        self.steps = diffusion.diffusion_steps
        # The U-Net gets t * 1000 / T if the configuration says so, as guided-diffusion's `_scale_timesteps`.
        self.timestep_scale = 1000.0 / self.steps if diffusion.rescale_timesteps else 1.0
        schedule = respaced_schedule(diffusion, diffusion.diffusion_steps)
        snr = schedule.alphas_cumprod / (1.0 - schedule.alphas_cumprod)
        weight = np.ones_like(snr) if min_snr_gamma is None else np.minimum(snr, min_snr_gamma) / snr
        weight = np.maximum(weight, np.minimum(snr_floor / snr, LARGEST_WEIGHT))
        tables = {
            "sqrt_alphas_cumprod": schedule.sqrt_alphas_cumprod,
            "sqrt_one_minus_alphas_cumprod": schedule.sqrt_one_minus_alphas_cumprod,
            "sqrt_recip_alphas_cumprod": schedule.sqrt_recip_alphas_cumprod,
            "sqrt_recipm1_alphas_cumprod": schedule.sqrt_recipm1_alphas_cumprod,
            "posterior_mean_x0": schedule.posterior_mean_coef1,
            "posterior_mean_xt": schedule.posterior_mean_coef2,
            "posterior_log_variance": schedule.posterior_log_variance_clipped,
            "log_beta": np.log(schedule.betas),
            "weight": weight,
        }
        for name, values in tables.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of DDPM eq. 4. `x0`, `noise` [N, 3, S, S]; `t` int64 [N] in 0 .. T - 1."""
        return self._at("sqrt_alphas_cumprod", t) * x0 + self._at("sqrt_one_minus_alphas_cumprod", t) * noise

    def predict_x0(self, eps: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean image that a noise prediction stands for (DDPM, below eq. 15), [N, 3, S, S], not clipped."""
        return self._at("sqrt_recip_alphas_cumprod", t) * x_t - self._at("sqrt_recipm1_alphas_cumprod", t) * eps

    def image_share(self, t: Tensor) -> Tensor:
        """Share of x_t's variance that is the image's: alphas_cumprod, float32 [N]."""
        return self.get_buffer("sqrt_alphas_cumprod")[t] ** 2

    def timesteps(self, t: Tensor) -> Tensor:
        """The timestep input of the U-Net, float32 [N]."""
        return t.float() * self.timestep_scale

    def forward(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Loss per image.

        Args:
            output: What the network gave for (x_t, t), float32 [N, 3 or 6, S, S].
            x0: Clean images in [-1, 1], [N, 3, S, S].
            x_t: `q_sample(x0, t, noise)`.
            t: int64 [N].
            noise: Standard normal, [N, 3, S, S].

        Returns:
            float32 [N] each: `loss` (to minimise), `mse` (unweighted L_simple), and `vb` (L_vlb in bits per dimension
            times T / 1000) where the variance is learned.
        """
        if not self.learn_sigma:
            mse = _mean_flat((noise - output) ** 2)
            return {"loss": self._weight(t) * mse, "mse": mse}
        eps, fraction = output.chunk(2, dim=1)
        mse = _mean_flat((noise - eps) ** 2)
        # The bound must not move the mean: its gradient is stopped there (improved DDPM, section 3.1).
        vb = self._variational_bound(eps.detach(), fraction, x0, x_t, t) * (self.steps / 1000.0)
        return {"loss": self._weight(t) * mse + vb, "mse": mse, "vb": vb}

    def _variational_bound(self, eps: Tensor, fraction: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """L_{t-1} (a KL) or, at t = 0, L_0 (a likelihood) in bits per dimension, [N]."""
        mean = self._at("posterior_mean_x0", t) * self.predict_x0(eps, x_t, t) + self._at("posterior_mean_xt", t) * x_t
        true_mean = self._at("posterior_mean_x0", t) * x0 + self._at("posterior_mean_xt", t) * x_t
        true_log_variance = self._at("posterior_log_variance", t)
        # Interpolation between the two extremes in the log domain, improved DDPM eq. 15 with v in [-1, 1].
        share = (fraction + 1.0) / 2.0
        log_variance = share * self._at("log_beta", t) + (1.0 - share) * true_log_variance
        kl = _normal_kl(true_mean, true_log_variance, mean, log_variance)
        likelihood = _discretized_log_likelihood(x0, mean, 0.5 * log_variance)
        nats = torch.where(t == 0, -_mean_flat(likelihood), _mean_flat(kl))
        return nats / math.log(2.0)

    def _weight(self, t: Tensor) -> Tensor:
        return self.get_buffer("weight")[t]

    def _at(self, name: str, t: Tensor) -> Tensor:
        return self.get_buffer(name)[t].view(-1, 1, 1, 1)


def _mean_flat(x: Tensor) -> Tensor:
    return x.flatten(1).mean(dim=1)


def _normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) per element, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
        - 1.0
    )


def _normal_cdf(x: Tensor) -> Tensor:
    # The tanh approximation (Page 1977) that the original uses: the loss values stay comparable with it.
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log P(pixel) per element, in nats, of a normal whose tails beyond -1 and 1 count to the outermost values."""
    inverse_scale = torch.exp(-log_scale)
    upper = _normal_cdf((x - mean + 1.0 / LEVELS) * inverse_scale)
    lower = _normal_cdf((x - mean - 1.0 / LEVELS) * inverse_scale)
    probability = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1.0 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()
