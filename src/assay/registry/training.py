"""What training is made of: recipes, networks, optimizers, schedules, averages and augmentations, one row each."""

from __future__ import annotations

from assay.registry.entry import Entry, Kind


def _entry(kind: Kind, module: str, name: str, summary: str, paper: str = "") -> Entry:
    return Entry(name=name, kind=kind, target=f"assay.{module}:{name}", summary=summary, paper=paper)


def _recipe(name: str, summary: str, paper: str = "", inner: str = "", aliases: tuple[str, ...] = ()) -> Entry:
    """A recipe; `inner` is its attack when none is named."""
    return Entry(
        name=name,
        kind="recipe",
        target=f"assay.training.recipes:{name}",
        summary=summary,
        paper=paper,
        inner=inner,
        aliases=aliases,
    )


_PGD_10 = "PGD(steps=10, rel_step=0.25)"
_PGD_NEAR = "PGD(steps=10, rel_step=7/31, start_noise=0.001)"  # 0.007 at 0.031, from next to the clean input

RECIPES: tuple[Entry, ...] = (
    _recipe("Standard", "cross-entropy on clean inputs"),
    _recipe(
        "AdversarialTraining",
        "cross-entropy on the inputs that an attack finds",
        "Madry et al. 2018, https://arxiv.org/abs/1706.06083",
        inner=_PGD_10,
        aliases=("at",),
    ),
    _recipe(
        "PGDAT",
        "adversarial training with PGD from a random start",
        "Madry et al. 2018, https://arxiv.org/abs/1706.06083",
    ),
    _recipe(
        "FGSMAT",
        "adversarial training with one full step from the clean input",
        "Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572",
    ),
    _recipe(
        "FastAT",
        "adversarial training with one step of 1.25 eps from a random start",
        "Wong et al. 2020, https://arxiv.org/abs/2001.03994",
    ),
    _recipe(
        "FreeAT",
        "weights and a perturbation that is carried on both follow each backward pass",
        "Shafahi et al. 2019, https://arxiv.org/abs/1904.12843",
    ),
    _recipe(
        "ALP",
        "cross-entropy on clean and moved inputs, and the distance of their logits",
        "Kannan et al. 2018, https://arxiv.org/abs/1803.06373",
        inner=_PGD_10,
    ),
    _recipe(
        "TRADES",
        "clean cross-entropy, and how far the answer can be moved around each input",
        "Zhang et al. 2019, https://arxiv.org/abs/1901.08573",
        inner=_PGD_NEAR,
    ),
    _recipe(
        "MART",
        "boosted cross-entropy, and a divergence that counts for misclassified inputs",
        "Wang et al. 2020, https://openreview.net/forum?id=rklOg6EFwS",
        inner=_PGD_NEAR,
    ),
    _recipe(
        "AWP",
        "another recipe's gradient at weights that are moved against it",
        "Wu et al. 2020, https://arxiv.org/abs/2004.05884",
        inner="PGDAT()",
    ),
    _recipe(
        "MultiThreat",
        "the largest, mean or a random one of the losses under several attacks",
        "Tramer and Boneh 2019, https://arxiv.org/abs/1904.13000",
    ),
    _recipe(
        "InterpolatedAT",
        "mixup of the clean and of the adversarial half",
        "Lamb et al. 2022, https://arxiv.org/abs/1906.06784",
        inner="PGD(steps=7, rel_step=7/31)",
        aliases=("iat",),
    ),
    _recipe(
        "AVMixup",
        "cross-entropy between each input and a point beyond its adversarial one",
        "Lee et al. 2020, https://arxiv.org/abs/2003.02484",
        inner=_PGD_10,
    ),
    _recipe(
        "CURE",
        "clean cross-entropy, and how the loss's gradient changes along its signs",
        "Moosavi-Dezfooli et al. 2019, https://arxiv.org/abs/1811.09716",
    ),
    _recipe(
        "LLR",
        "clean cross-entropy, and how far the loss is from linear around each input",
        "Qin et al. 2019, https://arxiv.org/abs/1907.02610",
    ),
    _recipe(
        "GradAlign",
        "single-step adversarial training whose gradients stay aligned around each input",
        "Andriushchenko and Flammarion 2020, https://arxiv.org/abs/2007.02617",
        inner="FGSM()",
    ),
    _recipe(
        "ART",
        "adversarial training whose gradients look like the image, and stay so around it",
        "Singh et al. 2020, https://arxiv.org/abs/1911.13073",
    ),
    _recipe(
        "IGNorm",
        "clean cross-entropy, and the size of the loss's integrated gradients to the worst input around",
        "Chen et al. 2019, https://arxiv.org/abs/1905.09957",
    ),
    _recipe(
        "IGSumNorm",
        "cross-entropy and the size of its integrated gradients, both at the worst input around",
        "Chen et al. 2019, https://arxiv.org/abs/1905.09957",
    ),
    _recipe(
        "Distillation",
        "the answers of a teacher at a high temperature, learned at the same",
        "Papernot et al. 2016, https://arxiv.org/abs/1511.04508",
    ),
    _recipe(
        "Reconstruction",
        "an autoencoder that finds images again from noisy ones",
        "Meng and Chen 2017, https://arxiv.org/abs/1705.09064",
    ),
    _recipe(
        "Likelihood",
        "a density that finds the images likely",
        "Salimans et al. 2017, https://arxiv.org/abs/1701.05517",
    ),
    _recipe(
        "WGANGP",
        "a generator of images, against a critic whose slope is held near 1",
        "Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028",
    ),
    _recipe(
        "APEGAN",
        "a generator that undoes adversarial perturbations, against a discriminator",
        "Shen et al. 2017, https://arxiv.org/abs/1707.05474",
        inner="FGSM()",
    ),
)

NETWORKS: tuple[Entry, ...] = (
    _entry("network", "models.networks", "FashionCNN", "two convolutions and two linear layers for 1x28x28 images"),
    _entry("network", "models.networks", "DigitsMLP", "one hidden layer of 20 units for 1x8x8 digits"),
    _entry("network", "models.networks", "SmallCNN", "four convolutions and two linear layers for images of one size"),
    _entry(
        "network",
        "models.networks",
        "PreActResNet18",
        "pre-activation ResNet-18 for small images, 11.2 million parameters",
        "He et al. 2016, https://arxiv.org/abs/1603.05027",
    ),
    _entry(
        "network",
        "models.networks",
        "WideResNet",
        "wide residual network of any depth and width for small images",
        "Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146",
    ),
    _entry(
        "network",
        "models.networks",
        "ConvAutoencoder",
        "three or five small convolutions, from images to images",
        "Meng and Chen 2017, https://arxiv.org/abs/1705.09064",
    ),
    _entry(
        "network",
        "models.networks",
        "PixelCNN",
        "the density of an image, pixel by pixel",
        "Salimans et al. 2017, https://arxiv.org/abs/1701.05517",
    ),
    _entry("network", "models.networks", "DenseGenerator", "images from normal numbers, by fully connected layers"),
    _entry(
        "network",
        "models.networks",
        "ConvGenerator",
        "images from normal numbers, by transposed convolutions",
        "Radford et al. 2016, https://arxiv.org/abs/1511.06434",
    ),
    _entry(
        "network",
        "models.networks",
        "APEGenerator",
        "from adversarial to clean images, by two convolutions and two back",
        "Shen et al. 2017, https://arxiv.org/abs/1707.05474",
    ),
)

OPTIMIZERS: tuple[Entry, ...] = (
    _entry("optimizer", "training.optimizers", "SGD", "stochastic gradient descent with momentum and weight decay"),
    _entry(
        "optimizer",
        "training.optimizers",
        "AdamW",
        "Adam with weight decay apart from the gradient",
        "Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101",
    ),
    _entry(
        "optimizer",
        "training.optimizers",
        "Adam",
        "steps along running means of the gradient over the root of its square",
        "Kingma and Ba 2015, https://arxiv.org/abs/1412.6980",
    ),
)

SCHEDULES: tuple[Entry, ...] = (
    _entry("schedule", "training.schedules", "Constant", "the peak rate throughout, after a linear rise"),
    _entry(
        "schedule",
        "training.schedules",
        "Cyclic",
        "a linear rise to the peak rate and a linear fall to 0",
        "Smith 2017, https://arxiv.org/abs/1506.01186",
    ),
    _entry("schedule", "training.schedules", "Piecewise", "the peak rate, multiplied by a factor at each milestone"),
    _entry(
        "schedule",
        "training.schedules",
        "Cosine",
        "half a cosine from the peak rate to 0, after a linear rise",
        "Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983",
    ),
)

AVERAGES: tuple[Entry, ...] = (
    _entry("average", "training.averaging", "EMA", "exponential moving average of weights and floating buffers"),
    _entry(
        "average",
        "training.averaging",
        "SWA",
        "mean of the weights over the last part of training",
        "Izmailov et al. 2018, https://arxiv.org/abs/1803.05407",
    ),
)

AUGMENTATIONS: tuple[Entry, ...] = (
    _entry("augmentation", "training.augmentation", "Crop", "a shift by up to so many pixels along each axis"),
    _entry("augmentation", "training.augmentation", "Flip", "a mirror image, left for right"),
    _entry(
        "augmentation",
        "training.augmentation",
        "Cutout",
        "a grey square at a random place",
        "DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552",
    ),
    _entry(
        "augmentation",
        "training.noise",
        "AddNoise",
        "Gaussian noise of a random strength on every value",
        "Rusak et al. 2020, https://arxiv.org/abs/2001.06057",
    ),
    _entry(
        "augmentation",
        "training.augmentation",
        "Mixup",
        "convex combinations of two samples and their targets",
        "Zhang et al. 2018, https://arxiv.org/abs/1710.09412",
    ),
)
