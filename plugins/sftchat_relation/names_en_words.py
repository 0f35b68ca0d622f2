"""Data: English given names, surnames, pet names and titles; none of them is in the evalset."""

from __future__ import annotations

MALE = tuple(
    (
        "Aaron Alan Alec Alexander Alfred Andrew Angus Anthony Arnold Arthur Austin Barnaby Barry Benjamin Bernard Bertie Blake Brian Bruce "
        "Callum Calvin Carl Cecil Cedric Charles Christopher Claude Clifford Colin Connor Craig Curtis Cyril Damian Daniel Darren David "
        "Denis Derek Dominic Donald Douglas Dylan Edgar Edmund Elliot Elmer Eric Ernest Eugene Ewan Floyd Francis Franklin Gareth Gavin "
        "Geoffrey George Gerald Gilbert Glenn Gordon Graham Gregory Harold Harry Harvey Hector Henry Herbert Homer Howard Hubert Ian Jacob "
        "Jake James Jason Jeffrey Jeremy Joel John Jonathan Joseph Joshua Justin Keith Kevin Lawrence Leonard Leo Leslie Lewis Lloyd Louis "
        "Lucas Luther Malcolm Martin Marvin Matthew Maurice Maxwell Melvin Michael Morris Nathaniel Neal Neil Nicholas Nigel Noel Norman "
        "Oliver Oscar Oswald Owen Paul Peter Philip Ralph Randall Raymond Reginald Richard Robert Robin Roger Roland Ronald Rory Ross Roy "
        "Russell Samuel Saul Scott Sean Sebastian Seth Sidney Spencer Stanley Stephen Steven Stewart Terence Theodore Thomas Timothy Trevor "
        "Tristan Tyler Vernon Vincent Warren Wayne William Winston Zachary Alistair Barnabas Caleb Casper Clarence Cornelius Cuthbert "
        "Darius Eli Emmanuel Ezra Gabriel Godfrey Ira Lambert Levi Lyle Milton Montague Mortimer Otto Percival Phineas Quincy Raphael "
        "Thaddeus Uriah Wilbur"
    ).split()
)
"""Given names of men."""

FEMALE = tuple(
    (
        "Ada Adelaide Agatha Alexandra Alice Alison Amanda Amelia Amy Andrea Angela Anna Annabel Annette Annie Audrey Beatrice Becky "
        "Bernice Bertha Bessie Beth Betty Beverly Blanche Brenda Bridget Bronte Camilla Carla Carol Caroline Catherine Cecilia Celia "
        "Charlotte Cheryl Chloe Christine Claire Clara Claudia Cora Cordelia Cynthia Daphne Deborah Deirdre Delia Denise Diana Donna Dora "
        "Doreen Doris Edna Eileen Elaine Eleanor Elena Elizabeth Ella Ellen Eloise Elsie Emily Emma Enid Erica Estelle Esther Ethel Eunice "
        "Eva Evelyn Fanny Felicity Fiona Flora Florence Frances Frieda Gail Georgia Geraldine Gertrude Gillian Gladys Glenda Gloria Gwen "
        "Hannah Helen Hilary Hilda Ida Irene Isabel Jane Janet Janice Jean Jemima Jennifer Jenny Jessica Jill Joanna Josephine Joyce Judith "
        "Julia Juliet Karen Kate Katherine Kathleen Kathryn Kay Kirsty Kitty Laura Leah Leila Lillian Linda Lisa Lois Lorna Lorraine Louisa "
        "Louise Lucinda Lucy Lydia Mabel Madeleine Margaret Maria Marian Marie Marina Marion Marjorie Mary Matilda Maud Maureen Mavis "
        "Melanie Melissa Meredith Mildred Millicent Minnie Miranda Miriam Moira Molly Monica Muriel Myra Nancy Naomi Natalie Nellie Nina "
        "Norma Olivia Pamela Patricia Paula Peggy Penelope Phoebe Phyllis Polly Priscilla Rachel Rebecca Rhoda Rita Roberta Rosalie "
        "Rosalind Rowena Ruth Sally Samantha Sandra Sarah Selina Sheila Shirley Sophia Stella Susan Suzanne Sybil Tamara Teresa Tessa Tina "
        "Tracy Valerie Vanessa Vera Victoria Virginia Vivien Wanda Wendy Winifred Yvonne Zoe"
    ).split()
)
"""Given names of women."""

SURNAMES = tuple(
    (
        "Abbott Adams Aldridge Allen Anderson Andrews Archer Armstrong Atkins Bailey Baker Baldwin Ballard Banks Barker Barlow Barnes "
        "Barrett Barton Bates Baxter Beckett Bell Bennett Benson Berry Bishop Blackwell Blair Bolton Booth Bowen Bowman Boyle Bradford "
        "Bradley Brady Brennan Brewer Briggs Brooks Browning Bryant Buckley Burgess Burke Burns Burton Butler Byrne Caldwell Cameron "
        "Campbell Cannon Carlisle Carpenter Carr Carroll Carson Carter Chambers Chandler Chapman Clayton Coleman Collins Connolly Conway "
        "Cooper Corbett Crawford Crosby Dalton Davenport Davidson Dawson Deacon Dempsey Dixon Donnelly Donovan Drake Drummond Dudley Duffy "
        "Dunlop Eaton Ellis Elliott Emerson Evans Farley Farrell Faulkner Fenton Ferguson Fielding Fisher Fitzgerald Fleming Fletcher Flynn "
        "Forbes Forster Fowler Fraser Freeman Gallagher Gardner Garner Gibbons Gibson Gilmore Goddard Goodwin Grantham Greaves Greene "
        "Griffin Griffiths Hadley Halliday Hamilton Hammond Hancock Harding Harper Harrington Harris Harrison Hartley Harwood Hawkins Hayes "
        "Haywood Henderson Hewitt Higgins Hobbs Hodges Hoffman Holden Holloway Horton Houston Hudson Hughes Humphreys Hunter Hurst "
        "Hutchinson Ingram Irving Jackson Jacobs Jarvis Jefferson Jenkins Jennings Johnson Johnston Jordan Keating Keller Kelly Kemp "
        "Kendall Kennedy Kerr Kirby Knight Knowles Lancaster Langley Larson Lawson Leighton Lennox Lindsay Lockwood Logan Lynch MacDonald "
        "Mackenzie Maddox Mahoney Mallory Mansfield Marsden Marshall Mason Matthews Maynard McCarthy McKay Merrill Middleton Miller "
        "Mitchell Montgomery Moran Morgan Morrison Morton Mullins Murphy Murray Nash Nelson Newton Nicholson Nolan Norris Norton Oakley "
        "Osborne Owens Palmer Parker Parsons Patterson Pearson Perkins Phelps Phillips Porter Powell Pritchard Quinn Ramsay Randolph Rankin "
        "Reed Reynolds Rhodes Richards Richardson Riley Roberts Robertson Robinson Robson Rogers Rowland Ryan Sanders Saunders Schofield "
        "Shannon Shaw Shepherd Sheridan Sherwood Simmons Simpson Sinclair Slater Sloan Smith Somerville Stafford Stanton Stephens Stevens "
        "Stevenson Stokes Stratton Sutherland Sutton Sweeney Talbot Tate Taylor Templeton Thompson Thornton Townsend Travers Turner "
        "Underwood Vance Vaughan Wade Wainwright Wallace Walsh Walters Warner Warwick Watkins Watson Watts Weaver Webb Webster Wells Weston "
        "Whitaker Whitfield Whitman Whitmore Whittaker Wilkins Wilkinson Williams Williamson Wilson Winslow Woodward Wright Yates Yorke"
    ).split()
)
"""Surnames."""

MALE_PET_NAMES = tuple(
    (
        "Tam Ned Sim Nat Dick Jock Charlie Freddie Georgie Johnny Benny Jimmy Teddy Billy Bobby Sammy Mick Paddy Lenny Artie Joe Eddie Sid "
        "Bert Ernie"
    ).split()
)
"""Names by which men in service and children are called."""

FEMALE_PET_NAMES = tuple(
    ("Hetty Nell Tess Moll Sal Meg Dolly Lottie Milly Rosie Susie Sadie Trudy Maggie Katie Tilly Lizzie Patty Dot Effie Flossie").split()
)
"""The same for women."""

TITLES = {
    ("m", "old"): ("Captain", "Doctor", "Squire", "Sir", "Major"),
    ("f", "old"): ("Dame", "Lady", "Madam"),
    ("m", "new"): ("Mr.", "Dr.", "Professor", "Captain", "Inspector", "Major"),
    ("f", "new"): ("Mrs.", "Miss", "Dr.", "Professor"),
}
"""Titles of adults before a surname, by gender and era."""

RELIGIOUS_TITLES = {"m": ("Abbot", "Prior", "Canon"), "f": ("Abbess", "Prioress")}
"""Titles before a given name in the old era."""
