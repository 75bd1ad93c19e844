"""The Open Inference Protocol, as HTTP (`/v2`) and gRPC both speak it.

schemas       what the JSON of a request may say
datatypes     the protocol's datatypes, as arrays and as bytes
tensors       the inputs of a request, as arrays
request       from a body to an order
reply         from columns to the outputs that were asked for
description   inputs, outputs and configuration of a version
repository    which models are ready; loading and unloading
statistics    what inferences took
pages         what replies say
refusals      what was wrong with a request is answered with 400, as clients of the protocol expect

Flow: body or message → request → `dubito.asked.PredictOrder` → columns → reply.
Source: the Open Inference Protocol, version 2, with Triton's extensions for binary tensors,
parameters, the model repository, the configuration and the statistics of a model.
"""
