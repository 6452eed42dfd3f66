"""Search words for tasks."""

TASKS = {
    "classification": "image classification, text classification, categories, labels",
    "clustering": "clusters, grouping, partitions, unsupervised",
    "detection": "object detection, bounding boxes, bounding box regression",
    "distribution": "divergence or distance between probability distributions",
    "generative": "generative models, image generation, synthesis",
    "graph": "graph neural networks, GNN, nodes and edges",
    "image": "computer vision, image restoration and reconstruction",
    "instance_segmentation": "instance masks",
    "keypoints": "pose estimation, landmarks, joints",
    "metric_learning": "embeddings, similarity, retrieval, verification",
    "nlp": "natural language processing, text",
    "oriented_detection": "object detection, rotated or oriented bounding boxes, aerial and satellite images",
    "ranking": "learning to rank, LTR, information retrieval, search, recommendation",
    "regression": "continuous targets, prediction of numbers",
    "reinforcement": "reinforcement learning, RL, policies, agents",
    "segmentation": "semantic segmentation, masks, pixels",
    "self_supervised": "self-supervised pretraining, representation learning",
    "sequence": "sequences, time steps",
}
"""Words that find all losses of a task. Words that find a single loss are its ``keywords``."""
