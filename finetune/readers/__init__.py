"""What other programs make of a LoRA file: their rules, the proof of a file's names, a diagnosis. Without torch.

Nothing here knows our exporters or our converter: the modules' names are made anew from how each program builds its
model, so that a slip of ours in writing a file is seen here and not repeated. Nothing is written, and no tensor is
read but the single numbers (alpha) that scales are made of.
"""
