"""Forecasts of partially observed systems by diffusion, conditioned on a past that is sparse far back.

`template` says which frames a network call sees and makes, `gaussian` what that costs and which template to take.
`noise`, `prior`, `network`, `denoise` and `sample` are the diffusion, `rollout` goes through the calls; `forecaster`
puts them together with `windows`, `past`, `contexts` and `normalisation`, `series` builds one for a time series,
`latent` puts one behind an autoencoder; `verification` scores ensembles and `charts` draws them. `systems` and
`transport` simulate what to try forecasts on.
"""

__all__ = [
    "charts",
    "contexts",
    "denoise",
    "forecaster",
    "gaussian",
    "latent",
    "network",
    "noise",
    "normalisation",
    "past",
    "prior",
    "rollout",
    "sample",
    "series",
    "systems",
    "template",
    "transport",
    "verification",
    "windows",
]
