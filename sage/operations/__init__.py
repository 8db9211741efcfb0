"""What the verbs of the command line do, through the ports only; how it is shown is the command line's business."""
