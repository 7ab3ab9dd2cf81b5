from runner.gradients.evaluate import Score
from runner.loop.evaluation_row import score_columns, training_columns
from runner.run_folder import columns


def test_training_columns_are_means():
    assert training_columns([6.0, 1.0, 4.0], classifies=True) == {"train_loss": 1.5, "train_error": 25.0}


def test_nothing_trained_has_no_means():
    assert training_columns([0.0, 0.0, 0.0], classifies=True) == {"train_loss": None, "train_error": None}


def test_objectives_without_classes_have_no_error():
    assert training_columns([6.0, 1.0, 4.0], classifies=False) == {"train_loss": 1.5, "train_error": None}


def test_scores_have_top5_where_asked():
    assert score_columns(None) == {}
    assert score_columns(Score(0.5, 10.0)) == {"test_loss": 0.5, "test_error": 10.0}
    assert score_columns(Score(0.5, 10.0, 2.0))["test_error_top5"] == 2.0


def test_scores_without_classes_have_no_error():
    assert score_columns(Score(0.5, None)) == {"test_loss": 0.5}


def test_validation_score_has_names_of_its_own():
    named = score_columns(Score(0.5, 10.0, 2.0), columns.VALIDATION_SCORE)
    assert named == {"validation_loss": 0.5, "validation_error": 10.0, "validation_error_top5": 2.0}
