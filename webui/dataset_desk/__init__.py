"""The desk for sets of pictures, without the page: what an inspection found, and captions that can be changed.

It imports neither Gradio nor torch. No picture of anybody's is opened here: an inspection's own process does that, and
leaves thumbnails.

    folders     which folders there are to choose from       captions   what stands where, and writing it
    inspecting  the process that inspects, and its report    slots      how a caption is written in each kind of file
    report      what it found, as it is shown                edits      find and replace, tags: pure functions
    shown       the same as HTML                             history    undo and redo, on the disk
    cuts        thumbnails with what is cut away             tokens     how many tokens a caption has
"""
