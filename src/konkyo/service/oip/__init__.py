"""The Open Inference Protocol, version 2, without its transport.

    request.py      a body and its header -> what is asked for, with its tensors
    tensors.py      numbers and bytes, in JSON and in the binary extension
    questions.py    what is asked for -> one question an image, for the pipeline
    response.py     answers -> tensors -> a body and its header
    metadata.py, statistics.py    what a model is, and what it has done
    schemas.py      the bodies as types

Sources: the protocol, https://github.com/open-inference/open-inference-protocol (specification/protocol); its
extensions, as https://github.com/triton-inference-server/server (docs/protocol) describes them: binary tensor
data, classification, model repository, statistics.
"""
