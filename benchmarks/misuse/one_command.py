"""Misuse that one command shows: wrong inputs, wrong models, wrong words, unreadable files."""

from __future__ import annotations

from misuse.shell import Command, Script

RUN = "--threat linf:0.1 --suite quick --limit 40"
EVALUATE = "evaluate digits-mlp --data"
ATTACK = "attack digits-mlp --data digits --limit 20 --attack"

INPUTS = [
    Command("images on the 0-255 scale", f"{EVALUATE} npz:range255.npz {RUN}", 2, ("0 to 255", "divide by 255")),
    Command(
        "the same, one attack",
        "attack digits-mlp --data npz:range255.npz --attack pgd --threat linf:0.1",
        2,
        ("0 to 255", "divide by 255"),
    ),
    Command(
        "normalised images",
        f"{EVALUATE} npz:normalised.npz {RUN}",
        2,
        ("-1 to 1", "inside the model", "bounds=(-1, 1)"),
    ),
    Command("integer images from a callable", f"{EVALUATE} wrong:integer_images {RUN}", 2, ("uint8", ".float() / 255")),
    Command("int64 images in an archive", f"{EVALUATE} npz:int64.npz {RUN}", 2, ("int64", "uint8")),
    Script(
        "integer images",
        "assay.attacks.PGD(threat=assay.Linf(0.1))(wrong.Right(), (x * 255).byte(), y)",
        "InputError",
        ("uint8", ".float() / 255"),
    ),
    Command("NaN in one image", f"{EVALUATE} npz:nan.npz {RUN}", 2, ("NaN", "row 3", "leave these samples out")),
    Command("labels that start at 1", f"{EVALUATE} npz:from1.npz {RUN}", 2, ("1 to 10", "10 classes", "start at 0")),
    Command("negative labels", f"{EVALUATE} npz:negative.npz {RUN}", 2, ("-1", "start at 0")),
    Command(
        "labels that start at 1, one attack",
        "attack digits-mlp --data npz:from1.npz --attack pgd --threat linf:0.1",
        2,
        ("1 to 10", "10 classes", "start at 0"),
    ),
    Command("float labels", f"{EVALUATE} npz:floatlabels.npz {RUN}", 2, ("float32", "integer")),
    Script(
        "float labels",
        "assay.evaluate(wrong.Right(), (x, y.float()), threat='linf:0.1', suite='quick')",
        "DataError",
        ("float32", "integers"),
    ),
    Script(
        "float labels, one attack",
        "assay.attacks.PGD(threat=assay.Linf(0.1))(wrong.Right(), x, y.float())",
        "InputError",
        ("float32", "integer"),
    ),
    Command("one-hot labels", f"{EVALUATE} npz:onehot.npz {RUN}", 2, ("(40, 10)", "one label per row")),
    Command("fewer labels than images", f"{EVALUATE} npz:fewer.npz {RUN}", 2, ("40", "30", "one label per row")),
    Script(
        "fewer labels than images",
        "assay.attacks.PGD(threat=assay.Linf(0.1))(wrong.Right(), x, y[:30])",
        "InputError",
        ("40", "30"),
    ),
    Command("no samples", f"{EVALUATE} npz:empty.npz {RUN}", 2, ("no samples",)),
    Command(
        "data of another shape than the model takes",
        f"{EVALUATE} fashion-mnist {RUN}",
        2,
        ("(1, 28, 28)", "cannot take"),
    ),
    Command(
        "eps in pixels of the 0-255 scale",
        f"{EVALUATE} digits --threat linf:8 --suite quick --limit 20",
        0,
        ("warning", "8", "8/255"),
    ),
]

MODELS = [
    Command("outputs are probabilities", f"evaluate wrong:Softmax --data digits {RUN}", 0, ("softmax", "logits")),
    Command("NaN outputs", f"evaluate wrong:NotANumber --data digits {RUN}", 3, ("NaN",)),
    Command(
        "NaN outputs at attacked inputs only", f"evaluate wrong:NotANumberUnderAttack --data digits {RUN}", 3, ("NaN",)
    ),
    Command(
        "the same output for every input",
        f"evaluate wrong:Constant --data digits {RUN}",
        0,
        ("error:", "same output", "weights"),
    ),
    Command(
        "the same, with an attack that needs no gradients",
        "evaluate wrong:Constant --data digits --threat linf:0.1 --attack square:queries=20 --limit 40",
        0,
        ("error:", "same output", "weights"),
    ),
    Command(
        "gradients are zero (rounding)",
        f"evaluate wrong:Rounding --data digits {RUN}",
        0,
        ("gradient is exactly zero", "Square"),
    ),
    Command("the input is detached", f"evaluate wrong:Detached --data digits {RUN}", 3, ("gradient", "detach")),
    Command(
        "the input is detached, one attack",
        "attack wrong:Detached --data digits --attack pgd --threat linf:0.1 --limit 20",
        3,
        ("gradient", "detach"),
    ),
    Command("random output", f"evaluate wrong:Noisy --data digits {RUN}", 0, ("same input gave another output",)),
    Script(
        "model in train mode",
        "print(assay.evaluate(wrong.Right().train(), (x, y), threat='linf:0.1', suite='quick').table())",
        "none",
        ("train mode", "model.eval()"),
    ),
    Script(
        "batch norm inside in train mode",
        "m = wrong.WithBatchNorm(running=True).eval(); m.norm.train(); "
        "print(assay.evaluate(m, (x, y), threat='linf:0.1', suite='quick').table())",
        "none",
        ("norm", "train mode", "other samples"),
    ),
    Command(
        "batch norm without running statistics",
        f"evaluate wrong:WithBatchNorm --data digits {RUN}",
        0,
        ("other samples", "running statistics"),
    ),
    Command("one output value", f"evaluate wrong:OneValue --data digits {RUN}", 3, ("one value", "torch.stack")),
    Command(
        "DLR on two classes",
        "attack wrong:TwoClasses --data wrong:two_classes --attack \"APGD(threat=Linf(0.1), loss='dlr')\"",
        2,
        ("dlr", "2", "margin"),
    ),
    Command(
        "DLR on two classes, in a run",
        "evaluate wrong:TwoClasses --data wrong:two_classes --threat linf:0.1 --attack \"APGD(loss='dlr')\"",
        2,
        ("dlr", "2", "margin"),
    ),
    Command(
        "suite standard on two classes",
        "evaluate wrong:TwoClasses --data wrong:two_classes --threat linf:0.1 --suite standard",
        0,
        ("fallback", "2"),
    ),
    Command(
        "ONNX model, gradient attack",
        "attack net.onnx --data digits --attack pgd --threat linf:0.1 --limit 20",
        2,
        ("gradients", "scores", "square"),
    ),
    Command(
        "ONNX model, only gradient attacks in the run",
        "evaluate net.onnx --data digits --threat linf:0.1 --attack pgd --limit 20",
        2,
        ("gradients", "scores", "square"),
    ),
    Command("ONNX model, suite quick", f"evaluate net.onnx --data digits {RUN}", 0, ("apgd-ce", "scores")),
]

WORDS = [
    Command(
        "model, nearly right", f"evaluate digit-mlp --data digits {RUN}", 2, ("digit-mlp", "did you mean", "digits-mlp")
    ),
    Command("data, nearly right", f"{EVALUATE} digit {RUN}", 2, ("'digit'", "did you mean", "digits")),
    Command(
        "threat, nearly right",
        f"{EVALUATE} digits --threat linff:0.1 --suite quick",
        2,
        ("linff", "did you mean", "Linf"),
    ),
    Command(
        "suite, nearly right", f"{EVALUATE} digits --threat linf:0.1 --suite quik", 2, ("quik", "did you mean", "quick")
    ),
    Command("attack, nearly right", f"{ATTACK} pdg --threat linf:0.1", 2, ("pdg", "did you mean", "PGD")),
    Command("attack, nearly right, to `show`", "show pdg", 2, ("pdg", "did you mean", "PGD")),
    Command(
        "setting, nearly right", f"{ATTACK} pgd --threat linf:0.1 --set step=100", 2, ("step", "did you mean", "steps")
    ),
    Command("setting out of range", f"{ATTACK} pgd --threat linf:0.1 --set steps=0", 2, ("steps", "0")),
    Command("setting that is no number", f"{ATTACK} pgd --threat linf:0.1 --set steps=many", 2, ("steps", "many")),
    Command("loss, nearly right", f"{ATTACK} apgd --threat linf:0.1 --set loss=dlrr", 2, ("dlrr", "dlr")),
    Command("no threat", f"{ATTACK} pgd", 2, ("--threat", "linf:8/255")),
    Command("eps that is no number", f"{EVALUATE} digits --threat linf:big", 2, ("big",)),
    Command("negative eps", f"{EVALUATE} digits --threat linf:-0.1", 2, ("-0.1",)),
    Command(
        "bracket left open",
        f'{ATTACK} "PGD(threat=Linf(8/255), steps=10"',
        2,
        ("PGD(threat=Linf(8/255), steps=10", "^"),
    ),
    Command("division by zero", f"{EVALUATE} digits --threat linf:8/0", 2, ("8/0", "zero")),
    Command(
        "code in an expression",
        f"{ATTACK} \"PGD(threat=__import__('os').system('touch hacked'))\"",
        2,
        ("^",),
        "hacked",
    ),
    Command("code in a threat", f"{EVALUATE} digits --threat \"Linf(open('hacked','w'))\"", 2, ("^",), "hacked"),
    Command("a number too large to compute", f"{EVALUATE} digits --threat linf:9**9**9", 2, ("^",)),
    Command("unknown option", f"{EVALUATE} digits --treat linf:0.1", 2, ("--treat", "--threat")),
    Command("unknown command", "evalute digits-mlp", 2, ("evalute", "evaluate")),
    Command("settings without a folder", f"{EVALUATE} digits {RUN} --resume", 2, ("--out",)),
    Command(
        "settings that exclude each other",
        f"{EVALUATE} digits {RUN} --out runs-x --resume --overwrite",
        2,
        ("--resume", "--overwrite"),
    ),
    Command("below --fail-under", f"{EVALUATE} digits {RUN} --fail-under 0.9", 1, ("0.9 is required",)),
]

FILES = [
    Command("no such file", f"{EVALUATE} npz:gone.npz {RUN}", 2, ("no file", "gone.npz")),
    Command("archive cut short", f"{EVALUATE} npz:cut.npz {RUN}", 2, ("cannot read", "cut.npz", "cut short")),
    Command("text named .npz", f"{EVALUATE} npz:text.npz {RUN}", 2, ("cannot read", "text.npz", "numpy.savez")),
    Command(
        "archive with other names",
        f"{EVALUATE} npz:nokey.npz {RUN}",
        2,
        ("'x' and 'y'", "'images', 'labels'", "numpy.savez"),
    ),
    Command("no such folder", f"{EVALUATE} folder:gone {RUN}", 2, ("no folder", "gone")),
    Command("weights given as a model", f"evaluate state.pt --data digits {RUN}", 2, ("weights", "function")),
    Command("pickled module given as a model", f"evaluate pickled.pt --data digits {RUN}", 2, ("pickled", "function")),
    Command("text named .onnx", f"evaluate text.onnx --data digits {RUN}", 2, ("text.onnx", "torch.onnx.export")),
    Command("no such model file", f"evaluate gone.pt2 --data digits {RUN}", 2, ("no file", "gone.pt2")),
    Command("no such module", f"evaluate nets:build --data digits {RUN}", 2, ("nets",)),
    Command("no such name in the module", f"evaluate wrong:Softmx --data digits {RUN}", 2, ("Softmx", "Softmax")),
    Command(
        "suite file that is no TOML",
        f"{EVALUATE} digits --threat linf:0.1 --suite suite.toml",
        2,
        ("suite.toml", "line 3"),
    ),
    Command("report of a folder without a run", "report images", 3, ("run.json",)),
]

SECTIONS = {"Inputs and labels": INPUTS, "Models": MODELS, "Words": WORDS, "Files": FILES}
