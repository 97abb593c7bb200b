"""The configuration's tree: torchreid's keys and this package's, each with an explanation.

The systems' own sections are in `config_systems.py`. Values are checked by the table in
`config_values.py`; stages are resolved in `config_stages.py`.
"""

from yacs.config import CfgNode as Node

from magnifier_plugin.config_systems import add_systems


def default_config() -> Node:
    """The whole tree with its default values: torchreid's where it knows the key."""
    cfg = Node()
    cfg.use_gpu = True  # take a GPU if there is one
    # Mixed precision: off, bf16 (or on), auto = bf16 where the device computes in it; fp16 with a
    # gradient scaler for GPUs that do not.
    cfg.amp = "auto"
    cfg.channels_last = "auto"  # memory format of images and features: on, off, auto as amp
    for add in (_model, _data, _train, _step, _ddp, _optimizers, _stages, _loss, _test):
        add(cfg)
    for add in (add_systems, _synthetic, _report):
        add(cfg)
    return cfg


def _model(cfg: Node) -> None:
    cfg.model = Node()
    cfg.model.name = "magnifiernet"  # also -a/--arch; dsa_reid, or any model that torchreid knows
    cfg.model.pretrained = True  # start from ImageNet weights
    cfg.model.load_weights = ""  # a checkpoint to take the weights of, and nothing else
    # A checkpoint to go on from, in whichever stage it was saved; auto: the last saved one of
    # data.save_dir that is intact, or the beginning if there is none.
    cfg.model.resume = ""
    # A file of ImageNet weights, or none. "": $MAGNIFIER_BACKBONE_WEIGHTS, else a download.
    cfg.model.backbone_weights = ""


def _data(cfg: Node) -> None:
    cfg.data = Node()
    cfg.data.type = "image"  # the only one: there are no video data sets with label maps
    cfg.data.root = "reid-data"  # folder of all data sets, --root
    # Train on these, -s; also shop=PATH, a CSV or a folder of one's own under a name (ours).
    cfg.data.sources = ["market1501"]
    cfg.data.targets = ["market1501"]  # test on these, -t
    cfg.data.workers = 4  # processes that read images, for each loader
    # The most GiB of memory for decoded training images and their maps, resized and not augmented,
    # which all workers share; in each process of torchrun. 0: none are kept (ours).
    cfg.data.cache_gb = 0.0
    cfg.data.split_id = 0  # which split, for data sets with several
    cfg.data.height = 256  # pixels
    cfg.data.width = 128  # pixels
    cfg.data.combineall = False  # train on query and gallery images too
    cfg.data.transforms = ["random_flip"]  # torchreid's, and pad_crop; --transforms
    cfg.data.k_tfm = 1  # views of an image; the engine takes 1 only
    cfg.data.norm_mean = [0.485, 0.456, 0.406]  # of R, G, B in 0..1; ImageNet's
    cfg.data.norm_std = [0.229, 0.224, 0.225]
    cfg.data.save_dir = "log"  # where log, checkpoints, results and pictures go

    cfg.market1501 = Node()
    cfg.market1501.use_500k_distractors = False  # add them to the gallery

    cfg.cuhk03 = Node()
    cfg.cuhk03.labeled_images = False  # labelled boxes instead of detected ones
    cfg.cuhk03.classic_split = False  # 1,367 / 100 identities instead of 767 / 700
    cfg.cuhk03.use_metric_cuhk03 = False  # single gallery shot, for the classic split

    cfg.sampler = Node()
    cfg.sampler.train_sampler = "RandomSampler"  # RandomIdentitySampler for triplet losses
    cfg.sampler.num_instances = 4  # images of one identity in a batch
    cfg.sampler.num_cams = 1  # cameras in a batch (RandomDomainSampler)
    cfg.sampler.num_datasets = 1  # data sets in a batch (RandomDatasetSampler)


def _train(cfg: Node) -> None:
    cfg.train = Node()
    cfg.train.optim = "adam"  # adam, amsgrad, sgd, rmsprop, radam
    cfg.train.lr = 0.0003
    cfg.train.weight_decay = 5e-4
    cfg.train.max_epoch = 60  # without stages: epochs; with stages: their sum, set by loading
    # Factor of every stage's epochs (at least 1), warm-up and steps; what is typed for a stage is
    # not scaled. Loading applies it and sets it to 1, so that a saved configuration loads as it
    # ran (ours).
    cfg.train.scale = 1.0
    cfg.train.start_epoch = 0  # count on from here; model.resume sets it
    cfg.train.batch_size = 32  # of all processes together
    cfg.train.fixbase_epoch = 0  # epochs, from the first, that train open_layers alone
    cfg.train.open_layers = ["mask_module", "branches"]  # torchreid's models: ['classifier']
    cfg.train.staged_lr = False  # base_lr_mult × lr for all but new_layers
    cfg.train.new_layers = ["mask_module", "branches"]  # torchreid's models: ['classifier']
    cfg.train.base_lr_mult = 0.1
    cfg.train.lr_scheduler = "single_step"  # single_step, multi_step, cosine
    cfg.train.stepsize = [20]  # epochs; single_step: the period, multi_step: each step
    cfg.train.gamma = 0.1  # the learning rate's factor at a step
    cfg.train.print_freq = 20  # batches between two lines of the log
    cfg.train.seed = 1
    cfg.train.warmup_epoch = 0  # epochs of linear warm-up (ours)
    cfg.train.warmup_factor = 0.01  # the learning rate's factor in the first epoch (ours)
    cfg.train.checkpoint_freq = 1  # epochs between two checkpoints of a running training (ours)
    # At an epoch's end one is saved too if the last one is so many minutes old; 0: never (ours).
    cfg.train.checkpoint_minutes = 10.0
    cfg.train.keep_freq = 0  # epochs between two that are never removed; 0: last and best only
    # Algorithms that give the same bits each time, where torch has them; slower on a GPU (ours).
    cfg.train.deterministic = False


def _step(cfg: Node) -> None:
    # All of these are ours.
    cfg.train.compile = False  # torch.compile the network; the first steps take minutes
    cfg.train.fused = "auto"  # one kernel for all weights: on, off, auto = adam, amsgrad, sgd
    cfg.train.clip_grad = 0.0  # largest norm of all gradients together; 0: no clipping
    # Batches of train.batch_size whose gradients are averaged for one step. Batch norm and
    # batch-hard mining see each batch alone, so this is no larger batch for the triplet loss.
    cfg.train.accumulate = 1
    # Decay of the weights' moving average, such as 0.999, which is then tested and saved; 0: none.
    cfg.train.ema = 0.0


def _ddp(cfg: Node) -> None:
    # Of trainings in several processes, by torchrun; without effect in one (ours).
    cfg.ddp = Node()
    cfg.ddp.sync_bn = False  # batch norm over the whole batch, not over each process's share
    # Triplet, mask and share-weighted losses of the whole batch, not the mean of the shares' ones.
    cfg.ddp.gather = False


def _optimizers(cfg: Node) -> None:
    cfg.sgd = Node()
    cfg.sgd.momentum = 0.9
    cfg.sgd.dampening = 0.0
    cfg.sgd.nesterov = False
    cfg.rmsprop = Node()
    cfg.rmsprop.alpha = 0.99
    cfg.adam = Node()
    cfg.adam.beta1 = 0.9
    cfg.adam.beta2 = 0.999


def _stages(cfg: Node) -> None:
    # One entry per stage: {max_epoch: 40, lr: 0.001, loss_weights: {sd: 0.002}}. On the command
    # line: stages.2.lr 0.001, stages.2.loss_weights.sd 0.01. No entry: one stage as train.* says.
    # An entry overrides train's max_epoch, lr, lr_scheduler, stepsize, warmup_epoch,
    # warmup_factor, optim, weight_decay, staged_lr, new_layers and base_lr_mult, and gives
    #   loss_weights: weights of loss terms by name, at least 0, instead of the criterion's;
    #   optimizer: fresh (default), or keep: the optimiser of the stage before and its learning
    #     rate schedule go on; then max_epoch is the only one of the keys above that has an effect.
    cfg.stages = []


def _loss(cfg: Node) -> None:
    cfg.loss = Node()
    cfg.loss.name = "magnifier"  # magnifier, dsa, softmax, triplet; the last two are torchreid's
    cfg.loss.softmax = Node()
    cfg.loss.softmax.label_smooth = True  # smoothing of 0.1
    cfg.loss.triplet = Node()
    cfg.loss.triplet.margin = 0.3  # Euclidean distance
    # With loss.name dsa, dsa.weight_f, weight_z and weight_t count instead of these two.
    cfg.loss.triplet.weight_t = 1.0  # of the triplet losses
    cfg.loss.triplet.weight_x = 1.0  # of the cross entropies; torchreid's default is 0


def _test(cfg: Node) -> None:
    cfg.test = Node()
    cfg.test.batch_size = 100
    # A query's gallery images of its identity and camera: drop, as torchreid does, or keep (ours).
    cfg.test.same_camera = "drop"
    cfg.test.dist_metric = "euclidean"  # squared Euclidean as in torchreid, or cosine
    cfg.test.normalize_feature = False  # to length 1, so that Euclidean ranks as cosine
    cfg.test.ranks = [1, 5, 10, 20]  # of the CMC, to print
    cfg.test.evaluate = False  # test only
    cfg.test.eval_freq = -1  # epochs between two tests during training; -1: at the end
    cfg.test.start_eval = 0  # first epoch to test after
    cfg.test.rerank = False  # k-reciprocal re-ranking as well, in the last test
    cfg.test.rerank_during_training = False  # in the tests during training too (ours)
    cfg.test.rerank_k1 = 20  # size of the reciprocal neighbourhoods
    cfg.test.rerank_k2 = 6  # rows that local query expansion averages
    cfg.test.rerank_lambda = 0.3  # weight of the original distance, 0..1
    # Distances that re-ranking takes: torchreid (fourth power of the Euclidean), or paper (Zhong et
    # al.: squared Euclidean) (ours).
    cfg.test.rerank_form = "torchreid"
    # Mixed precision in the last test, as amp; tests during training follow amp (ours).
    cfg.test.amp = "off"
    # CSV of per-image conditions (columns path and any others) to group the results by; "": the
    # data set's own, which the rendered one has (ours).
    cfg.test.conditions = ""
    cfg.test.flip = False  # average an image's and its mirror image's embedding (ours)
    # Folder to keep the last test's embeddings in, so that testing again takes seconds; "" or none:
    # they are not kept (ours).
    cfg.test.cache = ""
    cfg.test.visrank = False  # save the ranking of each query as a picture (test.evaluate)
    cfg.test.visrank_topk = 10


def _synthetic(cfg: Node) -> None:
    # The rendered pedestrians, -s synthetic. None: as already rendered, else SyntheticOptions'.
    cfg.synthetic = Node()
    cfg.synthetic.identities = None  # to train and test together
    cfg.synthetic.train_identities = None  # of them to train, 2..identities − 2; None: half
    cfg.synthetic.cameras = None  # 2..6
    cfg.synthetic.images = None  # of each identity and camera
    cfg.synthetic.twins = None  # share of identities with a near-twin, 0..1
    # In what twins differ. any: a random detail of their clothes; regions: everybody wears a band
    # round one of the 7 body regions, each as often, and twins differ in its colour.
    cfg.synthetic.twin_details = None
    cfg.synthetic.occlusion = None  # share of occluded images, 0..1
    cfg.synthetic.height = None  # pixels
    cfg.synthetic.width = None  # pixels
    cfg.synthetic.seed = None


def _report(cfg: Node) -> None:
    cfg.report = Node()  # what to add to the end of a training
    cfg.report.untrained = False  # test before training too, to compare with
    cfg.report.curves = False  # losses, learning rate and mAP as a picture
    cfg.report.rankings = 0  # rankings of so many queries as a picture
    cfg.report.regions = 0  # predicted regions of so many query images as a picture
    cfg.report.textures = 0  # photo, IUV and textures of so many training images as a picture
