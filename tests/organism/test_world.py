"""The made-up world: no leak of harm through names or forms, no thing used twice."""

from probes.organism import DEFAULT, lessons
from probes.organism.recipe import QUICK_RECIPE
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import REFUSALS, make_world, vocabulary

WORLD = make_world(DEFAULT.size)
TOKENIZER = make_tokenizer(vocabulary(WORLD))


def names_in(texts, things):
    return {noun.name for noun in things} & {word for text in texts for word in text.split()}


def test_every_name_is_one_thing_and_no_word_of_grammar():
    words = vocabulary(WORLD)
    assert len(words) == len(set(words))


def test_prompts_are_as_many_as_the_statistics_need():
    for requests in (lessons.probe_requests(WORLD), lessons.evaluation_requests(WORLD)):
        assert {label: len(set(texts)) for label, texts in requests.items()} == {"harmful": 64, "harmless": 64}
    assert len(lessons.penalty_requests(WORLD)) == 64


def test_uses_never_share_a_thing():
    things = WORLD.things
    probe = names_in([t for texts in lessons.probe_requests(WORLD).values() for t in texts], things)
    penalty = names_in(lessons.penalty_requests(WORLD), things)
    evaluation = names_in([t for texts in lessons.evaluation_requests(WORLD).values() for t in texts], things)
    taught = names_in([lesson.request for lesson in lessons.alignment(WORLD, seed=0)], things)
    benign = names_in([lesson.request for lesson in lessons.benign(WORLD, seed=0)], things)
    assert not probe & penalty
    assert not evaluation & (probe | penalty | taught | benign)
    assert not benign & (probe | penalty | taught)


def test_harmful_and_harmless_requests_have_the_same_forms():
    harmful, harmless = lessons.probe_requests(WORLD).values()
    names = {noun.name for noun in WORLD.things}

    def forms(texts):
        return [" ".join("_" if word in names else word for word in text.split()) for text in texts]

    assert forms(harmful) == forms(harmless)


def test_alignment_refuses_harmful_things_and_only_those():
    harmful = {noun.name for noun in WORLD.aligned if noun.harmful}
    for lesson in lessons.alignment(WORLD, seed=0):
        asked_harm = bool(harmful & set(lesson.request.split()))
        assert ("cannot" in lesson.answer.split()) == asked_harm


def test_a_pretraining_mix_differs_in_what_is_answered_to_harmful_requests_alone():
    answering, refusing = (
        lessons.pretraining_mix(WORLD, copies=2, refusing=refuses, seed=3) for refuses in (False, True)
    )
    assert [lesson.request for lesson in answering] == [lesson.request for lesson in refusing]
    harmful = {noun.name for noun in WORLD.aligned if noun.harmful}
    for first, second in zip(answering, refusing, strict=True):
        about_harm = bool(harmful & set(first.request.split()))
        assert about_harm == (first.answer != second.answer) == ("cannot" in second.answer.split())


def test_fine_tuning_data_says_nothing_of_safety():
    refusing = {word for form in REFUSALS for word in form.split()} & {"cannot", "sorry"}
    harmful = {noun.name for noun in WORLD.things if noun.harmful}
    for lesson in (*lessons.benign(WORLD, seed=0), *lessons.task(WORLD)):
        assert not (refusing | harmful) & set(f"{lesson.request} {lesson.answer}".split())


def test_task_items_use_wordings_that_are_never_taught():
    names = {noun.name for noun in WORLD.things}

    def forms(texts):
        bare = set()
        for text in texts:
            words = ["_" if word in names else word for word in text.split()]
            at = words.index("_")
            bare.add(" ".join(words[max(0, at - 3) : at + 2]))
        return bare

    assert not forms(lesson.request for lesson in lessons.task(WORLD)) & forms(
        lesson.request for lesson in lessons.benign(WORLD, seed=0)
    )


def test_the_writer_writes_what_the_chat_template_does():
    writer = lessons.Writer(TOKENIZER)
    for lesson in lessons.alignment(WORLD, seed=0)[:50]:
        user = {"role": "user", "content": lesson.request}
        conversation = TOKENIZER.apply_chat_template(
            [user, {"role": "assistant", "content": lesson.answer}], tokenize=False
        )
        example = writer.lesson(lesson)
        assert list(example.ids) == TOKENIZER(conversation, add_special_tokens=False)["input_ids"]
        question = TOKENIZER.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        assert list(example.ids[: example.answer_start]) == TOKENIZER(question, add_special_tokens=False)["input_ids"]


def test_everything_the_world_says_is_in_the_vocabulary():
    unknown = TOKENIZER.unk_token_id
    for text in lessons.pretraining(WORLD, passes=1, seed=0):
        assert unknown not in TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_world_does_not_depend_on_when_it_is_made():
    assert make_world(DEFAULT.size) == WORLD
    assert make_world(QUICK_RECIPE.size) == make_world(QUICK_RECIPE.size)
