"""Steel roughness: the stylus parameter Ra of a strip section, read from its laser reflection while it runs by.

Milne, Xie: "Steel Surface Roughness Parameter Calculations Using Lasers and Machine Learning Models", arXiv 2307.03723,
2023; Int. J. Advanced Manufacturing Technology, 2024. Time series extrinsic regression: signal (C, L) -> Ra in um.

    x~_c   = (x_c - mean_c) / std_c                     statistics of the training set per channel -> standardised
    log Ra^ = std f(x~) + mean                          f: networks, ROCKET with a ridge head, trees -> score
    log Ra^ = a log(w / 2) + b                          closed form: w, the width of the reflected lobe -> ClosedForm
    L      = Huber(f(x~) - (log Ra - mean) / std)       delta = one standard deviation of log Ra -> Networks, Rocket
    interval = Ra^ exp(+-q)                             q: conformal quantile of |log Ra - log Ra^| on validation coils

The paper compares families of regressors on the same sections: each is a strategy, a `Regressor` in a file of its own.
The amplitude of the signal tells the roughness, so a section is never standardised by itself.
"""

from zoo.methods.steel_roughness.module import FITS, NETWORKS, SteelRoughness, reflected_slope

__all__ = ["FITS", "NETWORKS", "SteelRoughness", "reflected_slope"]
